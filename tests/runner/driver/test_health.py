"""Laws of what deaths mean: broken code ends a run soon, bad requests and a bad node do not,
and each costs what it must."""

import random
from collections import Counter
from dataclasses import replace

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from simulated_fleet import World, simulate

from dynts_batch.runner.shard_plan import ShardPlan

_WORLDS = st.builds(
    World,
    plan=st.builds(ShardPlan, st.integers(1, 60), st.integers(1, 2), st.integers(1, 12)),
    num_nodes=st.integers(1, 4),
    slots=st.integers(1, 4),
    max_workers=st.integers(1, 8),
    max_attempts=st.integers(1, 4),
    max_seqs=st.integers(1, 6),
    dies_at_load=st.booleans(),
    has_worked=st.booleans(),
    seed=st.integers(0, 2**32),
)


@settings(max_examples=150)
@given(world=_WORLDS, poison=st.sets(st.integers(0, 119), max_size=3))
def test_three_bad_requests_never_end_a_run_and_are_found(world, poison):
    poison = frozenset(unit % world.plan.num_units for unit in poison)
    outcome = simulate(replace(world, poison=poison))
    assert outcome.error is None
    assert outcome.rows == Counter(range(world.plan.num_units))
    assert poison <= outcome.failed
    if world.max_attempts > 1:
        assert outcome.failed == poison
    for unit in outcome.failed:
        places = outcome.places[unit]
        assert world.num_nodes == 1 or len(set(places)) > 1 or len(places) > 2 * world.max_attempts


@settings(max_examples=150)
@given(world=_WORLDS, poison=st.sets(st.integers(0, 119), max_size=1))
def test_one_bad_node_loses_no_row_and_quarantines_nothing_but_what_is_bad(world, poison):
    poison = frozenset(unit % world.plan.num_units for unit in poison)
    world = replace(world, num_nodes=max(2, world.num_nodes), bad_nodes=frozenset({"n1"}))
    assume(len(poison) < world.plan.num_units)
    outcome = simulate(replace(world, poison=poison))
    assert outcome.error is None
    assert outcome.rows == Counter(range(world.plan.num_units))
    assert outcome.failed == poison
    if not poison:
        assert outcome.named.keys() <= {"n1"}


@settings(max_examples=150)
@given(world=_WORLDS)
def test_broken_code_ends_the_run_within_a_few_starts_and_leaves_it_resumable(world):
    num_trials = max(world.max_attempts, 3) + 1
    world = replace(world, is_broken=True, has_worked=False)
    outcome = simulate(world)
    assert not outcome.named
    if world.plan.num_units < (1 + world.max_workers) * num_trials:
        return  # so few may all be quarantined first
    num_elsewhere = num_trials // 2 if world.num_nodes > 1 else 0
    most = world.max_workers + max(2, world.max_workers // 2) + num_trials + num_elsewhere
    assert outcome.num_started <= most
    if world.max_attempts > 1:  # else who is there at the first death is quarantined
        assert "workers die whatever they are given" in str(outcome.error)
        assert not outcome.failed


@settings(max_examples=50)
@given(world=_WORLDS)
def test_what_breaks_after_it_has_worked_ends_too(world):
    outcome = simulate(replace(world, is_broken=True, has_worked=True))
    assert outcome.error is not None or len(outcome.failed) == world.plan.num_units


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32), max_workers=st.integers(1, 4), num_nodes=st.integers(1, 3))
def test_many_bad_requests_end_no_run_that_has_worked(seed, max_workers, num_nodes):
    """They are what is left at its end: one death after another, and not a row between them."""
    poison = frozenset(random.Random(seed).sample(range(600), 20))
    world = World(ShardPlan(600, 1, 4), num_nodes=num_nodes, max_workers=max_workers, seed=seed)
    outcome = simulate(replace(world, poison=poison, has_worked=True))
    assert outcome.error is None
    assert outcome.rows == Counter(range(600))
    assert outcome.failed == poison


@settings(max_examples=150)
@given(world=_WORLDS, poison=st.sets(st.integers(0, 119), max_size=3))
def test_no_run_waits_for_nodes_that_others_fill(world, poison):
    """Two deaths on the only node with room, and its only worker waited for the full one,
    five minutes to an hour."""
    poison = frozenset(unit % world.plan.num_units for unit in poison)
    world = replace(world, num_nodes=max(2, world.num_nodes), full_nodes=frozenset({"n1"}))
    outcome = simulate(replace(world, poison=poison))
    assert outcome.error is None
    assert outcome.rows == Counter(range(world.plan.num_units))
    assert poison <= outcome.failed


@settings(max_examples=50)
@given(world=_WORLDS)
def test_broken_code_ends_the_run_where_others_fill_a_node(world):
    world = replace(world, num_nodes=max(2, world.num_nodes), full_nodes=frozenset({"n1"}))
    outcome = simulate(replace(world, is_broken=True, has_worked=False))
    assert outcome.error is not None or len(outcome.failed) == world.plan.num_units
