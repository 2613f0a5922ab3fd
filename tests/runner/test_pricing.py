"""Laws of prices: shares sum to the total, and what is unknown stays unknown."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynts_batch.config import CostConfig
from dynts_batch.runner.pricing import EnergyShares, HeldTime, price

_SECONDS = st.lists(st.floats(0.01, 100), min_size=1, max_size=20)


@given(device_s=_SECONDS, watts=st.floats(0, 700), waits_s=st.lists(st.floats(0, 50), min_size=20))
def test_energy_shares_sum_to_the_energy_of_the_device_idling_included(device_s, watts, waits_s):
    shares, clock_s, busy_s, dealt_j = EnergyShares(), 0.0, 0.0, 0.0
    for row_s, wait_s in zip(device_s, waits_s, strict=False):
        clock_s, busy_s = clock_s + row_s + wait_s, busy_s + row_s
        shares.update(watts * clock_s, device_share=1.0)
        dealt_j += shares.take(row_s, busy_s=busy_s)
    assert dealt_j == pytest.approx(watts * clock_s)


def test_rows_that_ran_together_share_by_their_device_time():
    shares = EnergyShares()
    shares.update(90.0, device_share=1.0)
    assert shares.take(2.0, busy_s=3.0) == pytest.approx(60.0)
    assert shares.take(1.0, busy_s=3.0) == pytest.approx(30.0)


def test_a_gpu_shared_by_two_workers_is_counted_once():
    shares = [EnergyShares(), EnergyShares()]
    for worker in shares:
        worker.update(100.0, device_share=0.5)
    assert sum(worker.take(4.0, busy_s=4.0) for worker in shares) == pytest.approx(100.0)


def test_a_gap_in_the_count_makes_shares_unknown_until_it_is_back():
    shares = EnergyShares()
    shares.update(None, device_share=1.0)
    assert shares.take(1.0, busy_s=1.0) is None
    shares.update(50.0, device_share=1.0)
    assert shares.take(1.0, busy_s=2.0) == pytest.approx(50.0)


def test_a_row_without_device_time_costs_no_energy():
    shares = EnergyShares()
    shares.update(50.0, device_share=1.0)
    assert shares.take(0.0, busy_s=0.0) == 0.0


@pytest.mark.parametrize(
    ("cost", "energy_j", "usd"),
    [
        (CostConfig(), 3.6e6, None),
        (CostConfig(usd_per_gpu_hour=2.0), None, 1.0),
        (CostConfig(usd_per_gpu_hour=2.0, usd_per_kwh=0.5), 3.6e6, 1.5),
        (CostConfig(usd_per_kwh=0.5), 3.6e6, 0.5),
        (CostConfig(usd_per_gpu_hour=2.0, usd_per_kwh=0.5), None, None),
        (CostConfig(usd_per_gpu_hour=0.0), None, 0.0),
    ],
)
def test_a_price_needs_what_is_priced(cost, energy_j, usd):
    assert price(1800.0, energy_j, cost) == (None if usd is None else pytest.approx(usd))


def test_time_held_is_the_clock_or_simulated_time_that_is_ahead_of_it():
    held = HeldTime()
    time.sleep(0.05)
    half_s = held.update(busy_s=0.0, device_share=0.5)
    assert 0.025 <= half_s < 0.2
    assert 100.0 <= held.update(busy_s=100.0, device_share=1.0) - half_s < 100.2
