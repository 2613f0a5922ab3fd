"""Laws of what deaths mean: broken code ends a run soon, bad requests and a bad node do not, and each costs what it must."""

from collections import Counter
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_fleet import World, simulate

from dynts_batch.runner.plan import Plan

_WORLDS = st.builds(
    World,
    plan=st.builds(Plan, st.integers(1, 60), st.integers(1, 2), st.integers(1, 12)),
    num_nodes=st.integers(1, 4),
    slots=st.integers(1, 4),
    max_workers=st.integers(1, 8),
    max_attempts=st.integers(1, 4),
    max_seqs=st.integers(1, 6),
    dies_at_load=st.booleans(),
    has_worked=st.booleans(),
    seed=st.integers(0, 2**32),
)


@settings(max_examples=150, deadline=None)
@given(world=_WORLDS, poison=st.sets(st.integers(0, 119), max_size=3))
def test_three_bad_requests_never_end_a_run_and_are_found(world, poison):
    poison = frozenset(unit for unit in poison if unit < world.plan.num_units)
    outcome = simulate(replace(world, poison=poison))
    assert outcome.error is None
    assert outcome.rows == Counter(range(world.plan.num_units))
    assert poison <= outcome.failed
    if world.max_attempts > 1:
        assert outcome.failed == poison
    for unit in outcome.failed:
        places = outcome.places[unit]
        is_everywhere = world.num_nodes == 1 or len(set(places)) > 1
        assert is_everywhere or len(places) >= 2 * world.max_attempts


@settings(max_examples=150, deadline=None)
@given(world=_WORLDS)
def test_one_bad_node_loses_no_row_and_quarantines_nothing(world):
    world = replace(world, num_nodes=max(2, world.num_nodes), bad_nodes=frozenset({"n1"}))
    outcome = simulate(world)
    assert outcome.error is None
    assert outcome.rows == Counter(range(world.plan.num_units))
    assert not outcome.failed
    assert outcome.named.keys() <= {"n1"}


@settings(max_examples=150, deadline=None)
@given(world=_WORLDS)
def test_broken_code_ends_the_run_within_a_few_starts_and_leaves_it_resumable(world):
    num_trials = max(world.max_attempts, 3) + 1
    world = replace(world, is_broken=True, has_worked=False)
    outcome = simulate(world)
    assert not outcome.named
    if world.max_attempts > 1 and world.plan.num_units > num_trials:
        assert "workers die whatever they are given" in str(outcome.error)
        assert not outcome.failed
    most = world.max_workers + max(2, world.max_workers // 2) + num_trials + world.num_nodes
    assert outcome.num_started <= most


@settings(max_examples=150, deadline=None)
@given(world=_WORLDS)
def test_what_breaks_after_it_has_worked_ends_too(world):
    outcome = simulate(replace(world, is_broken=True, has_worked=True))
    assert outcome.error is not None or len(outcome.failed) == world.plan.num_units
