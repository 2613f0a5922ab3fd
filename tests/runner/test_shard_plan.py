"""Laws of the plan."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from dynts_batch.runner.shard_plan import ShardPlan

PLANS = st.builds(ShardPlan, st.integers(1, 200), st.integers(1, 7), st.integers(1, 50))


@given(PLANS)
def test_every_sample_of_every_row_is_in_exactly_one_shard(plan):
    units = [unit for shard in range(plan.num_shards) for unit in plan.units(shard)]
    assert units == list(range(plan.num_units))
    pairs = [plan.row_and_sample(unit) for unit in units]
    assert pairs == [(r, s) for r in range(plan.num_rows) for s in range(plan.num_samples)]


@given(PLANS)
def test_no_shard_is_empty_or_above_its_size(plan):
    sizes = [len(plan.units(shard)) for shard in range(plan.num_shards)]
    assert all(size == plan.shard_rows for size in sizes[:-1])
    assert 1 <= sizes[-1] <= plan.shard_rows


@given(PLANS)
def test_the_rows_of_a_shard_are_those_of_its_units(plan):
    for shard in range(plan.num_shards):
        rows = {plan.row_and_sample(unit)[0] for unit in plan.units(shard)}
        assert set(plan.rows(shard)) == rows


def test_samples_of_one_row_may_fall_in_two_shards():
    plan = ShardPlan(num_rows=3, num_samples=3, shard_rows=4)
    assert [list(plan.rows(shard)) for shard in range(3)] == [[0, 1], [1, 2], [2]]


@given(PLANS, st.integers(0, 300))
def test_a_sample_of_units_has_its_size_and_is_spread_evenly(plan, wanted):
    units = [unit for unit in range(plan.num_units) if plan.is_among(unit, wanted)]
    assert len(units) == min(wanted, plan.num_units)
    gaps = {after - before for before, after in itertools.pairwise(units)}
    assert not gaps or max(gaps) - min(gaps) <= 1
