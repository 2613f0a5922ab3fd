"""The promise behind every price: the rows' shares sum to the totals, to one part in a billion."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dynts_batch.config import CostConfig
from dynts_batch.report.price import Price
from dynts_batch.runner.pricing import EnergyShares, price

SECONDS = st.floats(1e-6, 1e4)
STEPS = st.lists(
    st.tuples(st.lists(SECONDS, min_size=1, max_size=5), st.floats(0.0, 1e6)),
    min_size=1,
    max_size=20,
)


# A short row after a long one: its seconds are the rest of a difference of two large sums.
@example([([4096.0], 0.0), ([1e-06], 1.0)])
@given(STEPS)
def test_energy_shares_sum_to_the_device_energy(steps):
    """Rows end in groups; before each group the meter has moved on by some joules."""
    shares, energy_j, busy_s, given_j = EnergyShares(), 0.0, 0.0, 0.0
    for device_seconds, joules in steps:
        energy_j += joules
        busy_s += sum(device_seconds)
        shares.update(energy_j, device_share=1.0)
        for device_s in device_seconds:
            given_j += shares.take(device_s, busy_s=busy_s)
    assert given_j == pytest.approx(energy_j, rel=1e-9, abs=1e-9)


@given(st.lists(st.tuples(SECONDS, st.floats(0.0, 1e6)), min_size=1, max_size=200))
def test_the_costs_of_rows_sum_to_the_cost_of_their_time_and_energy(rows):
    cost = CostConfig(usd_per_gpu_hour=2.5, usd_per_kwh=0.3)
    total = sum(price(device_s, energy_j, cost) for device_s, energy_j in rows)
    whole = price(sum(s for s, _ in rows), sum(j for _, j in rows), cost)
    assert total == pytest.approx(whole, rel=1e-9)


@given(SECONDS, st.integers(1, 50), st.integers(1, 50), st.integers(1, 10**6))
def test_a_price_per_thing_times_the_things_is_the_total(total, num_answers, num_correct, tokens):
    found = Price(total, num_answers, num_correct, tokens)
    for per, count in (
        (found.per_answer, num_answers),
        (found.per_correct, num_correct),
        (found.per_million_tokens, tokens / 1e6),
    ):
        assert per * count == pytest.approx(found.total, rel=1e-9)
