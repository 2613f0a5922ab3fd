"""Means weigh by time, energy is never guessed."""

import pytest

from dynts_batch.telemetry.gauge import Energy, Gauge


def gauge_of(*samples: tuple[float, float | None]) -> Gauge:
    gauge = Gauge()
    for t_s, value in samples:
        gauge.add(t_s, value)
    return gauge


def test_the_mean_weighs_by_time_not_by_sample() -> None:
    gauge = gauge_of((0, 10), (10, 10), (10, 30), (10, 30), (10, 30), (11, 30))
    assert gauge.peak == 30
    assert gauge.mean == pytest.approx((10 * 10 + 1 * 30) / 11)


def test_a_gap_adds_nothing() -> None:
    gauge = gauge_of((0, 10), (1, 10), (2, None), (9, 50), (10, 50))
    assert gauge.mean == pytest.approx((10 + 50) / 2)
    assert not gauge.is_gapless


def test_one_sample_is_its_own_mean_and_none_has_none() -> None:
    assert gauge_of((0, 5)).mean == 5
    assert gauge_of((0, None)).mean is None
    assert gauge_of((0, None)).peak is None


def energy_of(*samples: tuple[float, float | None, float | None]) -> list[float | None]:
    """Joules after each sample of (time, counter in J, power in W)."""
    power = gauge_of(samples[0][::2])
    energy = Energy(power, samples[0][1])
    joules = [energy.joules]
    for t_s, counter_j, power_w in samples[1:]:
        power.add(t_s, power_w)
        energy.add(counter_j)
        joules.append(energy.joules)
    return joules


def test_the_counter_beats_power_times_time() -> None:
    assert energy_of((0, 1000, 100), (1, 1150, 100), (2, 1400, 100)) == [0, 150, 400]


def test_without_a_counter_power_is_integrated() -> None:
    assert energy_of((0, None, 100), (1, None, 200), (3, None, 200)) == [0, 150, 550]


def test_a_gap_in_the_counter_is_unknown_and_heals() -> None:
    assert energy_of((0, 1000, None), (1, None, None), (2, 1300, None)) == [0, None, 300]


def test_a_gap_in_power_is_unknown_for_good() -> None:
    assert energy_of((0, None, 100), (1, None, None), (2, None, 100)) == [0, None, None]


def test_a_restarted_counter_is_bridged_by_power() -> None:
    joules = energy_of((0, 1000, 100), (1, 1100, 100), (2, 30, 100), (3, 150, 100))
    assert joules == [0, 100, 200, 320]


def test_a_counter_restarted_in_a_gap_is_bridged_from_its_last_reading() -> None:
    assert energy_of((0, 900, 100), (1, None, 100), (2, 30, 100))[-1] == 200


def test_a_restarted_counter_without_power_is_unknown_for_good() -> None:
    assert energy_of((0, 1000, None), (1, 30, None), (2, 130, None)) == [0, None, None]


def test_neither_counter_nor_power_is_unknown() -> None:
    assert energy_of((0, None, None), (1, None, None)) == [None, None]
