"""Laws of the statistics: intervals cover, pairs cancel what they share, and p-values are exact."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynts_batch.report.statistics import compare, estimate, mcnemar_p


def test_mean_and_standard_error_are_those_of_the_questions():
    found = estimate(np.array([1.0, 0.0, 0.5, 1.0]))
    assert found.mean == pytest.approx(0.625)
    assert found.standard_error == pytest.approx(np.std([1, 0, 0.5, 1], ddof=1) / 2)
    assert 0 <= found.low <= found.mean <= found.high <= 1


def test_the_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(200):
        found = estimate((rng.random(150) < 0.8).astype(float))
        hits += found.low <= 0.8 <= found.high
    assert 180 <= hits <= 200


@pytest.mark.parametrize("num", [2, 8, 1000])
def test_values_that_are_all_alike_leave_the_doubt_that_wilson_has(num):
    z = 1.959964
    for share in (0.0, 1.0):
        found = estimate(np.full(num, share))
        centre = (share + z**2 / (2 * num)) / (1 + z**2 / num)
        half = z * np.sqrt(share * (1 - share) / num + z**2 / (4 * num**2)) / (1 + z**2 / num)
        assert (found.low, found.high) == pytest.approx((centre - half, centre + half))
        assert (found.mean, found.standard_error) == (share, None)
    half_right = estimate(np.full(num, 0.5))
    assert 0 < half_right.low < 0.5 < half_right.high < 1
    same = compare(np.full(num, 1.0), np.full(num, 1.0)).difference
    assert same.low == -same.high < 0 == same.mean
    worse = compare(np.full(num, 1.0), np.full(num, 0.0)).difference
    assert worse.low == -1 == worse.mean < worse.high


def test_the_interval_of_a_share_near_its_end_covers_the_truth():
    rng = np.random.default_rng(3)
    hits = 0
    for _ in range(300):
        values = (rng.random(20) < 0.97).astype(float)
        if np.all(values == 1):  # what resampling calls certain
            found = estimate(values)
            hits += found.low <= 0.97 <= found.high
        else:
            hits += 1
    assert hits == 300


def test_the_same_values_give_the_same_interval_in_any_order():
    values = np.array([1.0, 0.0, 0.0, 0.5] * 25)
    assert estimate(values) == estimate(values[::-1])


def test_what_one_question_or_none_cannot_tell_is_unknown():
    assert estimate(np.array([])) is None
    one = estimate(np.array([1.0]))
    assert (one.mean, one.standard_error, one.low, one.high) == (1.0, None, None, None)
    assert compare(np.array([]), np.array([])) is None


def test_a_paired_difference_is_surer_than_its_parts():
    rng = np.random.default_rng(2)
    a = (rng.random(400) < 0.5).astype(float)
    b = a.copy()
    b[:20] = 1.0
    found = compare(a, b)
    assert found.difference.low >= 0
    assert found.num_worse == 0
    assert found.num_better == int((a[:20] == 0).sum())
    assert found.difference.mean == pytest.approx(found.num_better / 400)
    assert compare(b, a).difference.mean == pytest.approx(-found.difference.mean)
    assert compare(a, a).p_value == 1.0


@given(st.integers(0, 6), st.integers(0, 6))
def test_mcnemar_is_the_enumeration_of_all_coin_tosses(better, worse):
    num = better + worse
    tosses = [sum(toss) for toss in product((0, 1), repeat=num)]
    as_uneven = [t for t in tosses if abs(2 * t - num) >= abs(better - worse)]
    assert mcnemar_p(better, worse) == pytest.approx(len(as_uneven) / 2**num)


@pytest.mark.parametrize("num_same", [0, 1, 20])
@pytest.mark.parametrize("num_worse", range(8))
@pytest.mark.parametrize("num_better", range(8))
def test_interval_and_p_value_never_contradict_each_other(num_better, num_worse, num_same):
    """Five better and none worse were "+83.3 points [+50.0, +100.0]; p = 0.062"."""
    b = np.repeat([1.0, 0.0, 1.0], [num_better, num_worse, num_same])
    found = compare(np.repeat([0.0, 1.0, 1.0], [num_better, num_worse, num_same]), b)
    if found is None or found.difference.low is None:
        assert len(b) < 2
        return
    assert found.difference.low <= found.difference.mean <= found.difference.high
    if found.p_value >= 0.05:
        assert found.difference.low <= 0 <= found.difference.high


def test_the_interval_of_few_differing_questions_is_the_exact_one():
    """Of a share of 5 in 5 Clopper and Pearson's lower end is 0.025 ** (1 / 5)."""
    found = compare(np.zeros(6), np.array([1.0, 1.0, 1.0, 1.0, 1.0, 0.0])).difference
    assert found.low == pytest.approx(5 / 6 * (2 * 0.025 ** (1 / 5) - 1))
    assert found.high == 1.0


def test_the_paired_interval_covers_the_truth_for_few_questions():
    rng = np.random.default_rng(4)
    hits = 0
    for _ in range(400):
        a, b = (rng.random(12) < share for share in (0.5, 0.9))
        found = compare(a.astype(float), b.astype(float)).difference
        hits += found.low <= 0.4 <= found.high
    assert hits >= 380


def test_many_questions_take_no_time_and_no_overflow():
    assert mcnemar_p(30_000, 20_000) < 1e-40
    much = compare(np.repeat([0.0, 1.0], [30_000, 20_000]), np.repeat([1.0, 0.0], [30_000, 20_000]))
    assert 0.18 < much.difference.low < 0.2 < much.difference.high < 0.22
    assert estimate(np.tile(np.linspace(0, 1, 9), 20_000)).num_questions == 180_000
