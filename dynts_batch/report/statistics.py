"""How certain a share is, and whether two runs differ: arithmetic on one number per question.

The unit is the question, because samples of one question are not independent. Resampling is seeded,
so the same rows give the same report.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from math import log, log1p, sqrt

import numpy as np

NUM_RESAMPLES = 2_000
CONFIDENCE = 0.95
#: Standard errors on each side of a mean that span the 95% interval.
NUM_STANDARD_ERRORS = 1.959964


@dataclass(frozen=True)
class Estimate:
    """The mean over questions.

    `standard_error`, `low` and `high` are None if a single question leaves them unknown.
    `standard_error` is also None if all questions have the same value.
    """

    mean: float
    standard_error: float | None
    low: float | None
    high: float | None
    """Ends of the 95% interval: from resamples, or Wilson's if all questions have the same
    value."""
    num_questions: int


@dataclass(frozen=True)
class PairedComparison:
    """Run b minus run a, over the questions that are judged in both."""

    difference: Estimate
    """Its interval contains 0 wherever `p_value` is above 5%."""
    num_better: int
    """Questions that b answers right more often than a."""
    num_worse: int
    p_value: float
    """McNemar's exact test: the probability that chance splits the differing questions so
    unevenly."""


def estimate(values: np.ndarray, *, least: float = 0.0) -> Estimate | None:
    """The mean of `values` [questions], which are in `least`..1. None without any."""
    if len(values) == 0:
        return None
    mean = float(np.mean(values))
    if len(values) == 1:
        return Estimate(mean, None, None, None, 1)
    if np.ptp(values) == 0:
        return Estimate(mean, None, *_interval_of_equals(mean, len(values), least), len(values))
    low, high = _bootstrap_interval(values)
    error = float(np.std(values, ddof=1)) / sqrt(len(values))
    return Estimate(mean, error, low, high, len(values))


def compare(a: np.ndarray, b: np.ndarray) -> PairedComparison | None:
    """Compare `a` and `b` [questions], the share right of the same questions in two runs; None
    without any.

    With one sample per question this is McNemar's test. With more it is the sign test on the
    shares, its general case.

    The interval is the wider of two at each end. Resamples know how many questions differ. The
    exact interval knows what few differing questions can tell, as the test does.
    """
    difference = estimate(b - a, least=-1.0)
    if difference is None:
        return None
    num_better, num_worse = int(np.sum(b > a)), int(np.sum(b < a))
    sizes = np.abs(b - a)[b != a]
    if difference.low is not None and difference.high is not None and len(sizes):
        # Resamples of five questions that all differ one way would call that certain. If questions
        # differ by unequal amounts, the exact interval counts each as the smallest, so that it
        # keeps its sign and does not outweigh the resamples.
        size = float(sizes.min() * len(sizes) / len(a))
        low, high = (size * end for end in _exact_balance(num_better, num_worse))
        low, high = min(difference.low, low), max(difference.high, high)
        difference = replace(difference, low=low, high=high)
    return PairedComparison(difference, num_better, num_worse, mcnemar_p(num_better, num_worse))


def mcnemar_p(num_better: int, num_worse: int) -> float:
    """Two-sided exact p-value: a coin toss for each of the questions that differ."""
    num = num_better + num_worse
    ways = tail = 1
    for i in range(1, min(num_better, num_worse) + 1):
        ways = ways * (num - i + 1) // i
        tail += ways
    return float(min(Fraction(1), Fraction(2 * tail, 2**num)))


def _exact_balance(num_better: int, num_worse: int) -> tuple[float, float]:
    """95% interval of (better - worse) / (better + worse), in -1..1, given how many differ.

    From Clopper and Pearson's exact interval of a share (Biometrika 26, 1934). So it contains 0
    exactly where McNemar's exact test has p of at least 5%.
    """
    num = num_better + num_worse
    return 2 * _least_share(num_better, num) - 1, 1 - 2 * _least_share(num_worse, num)


def _least_share(count: int, num: int) -> float:
    """The share of which `count` or more of `num` come with the chance of one tail, by bisection.

    0 for a `count` of 0.
    """
    if count == 0:
        return 0.0
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, num + 1)))])
    counts = np.arange(count, num + 1)
    log_ways = log_factorial[num] - log_factorial[counts] - log_factorial[num - counts]
    low, high = 0.0, count / num
    for _ in range(50):
        share = (low + high) / 2
        chances = np.exp(log_ways + counts * log(share) + (num - counts) * log1p(-share))
        low, high = (share, high) if np.sum(chances) < (1 - CONFIDENCE) / 2 else (low, share)
    return low


def _interval_of_equals(value: float, num: int, least: float) -> tuple[float, float]:
    """The interval if all `num` questions have the same value, which resampling cannot widen.

    Wilson's interval of "0 of `num`" bounds how many others may have another value. Such a value
    may be as far away as possible. For shares that are all 0 or all 1 this is Wilson's interval
    itself.
    """
    others = NUM_STANDARD_ERRORS**2 / (num + NUM_STANDARD_ERRORS**2)
    return value - others * (value - least), value + others * (1 - value)


def _bootstrap_interval(values: np.ndarray) -> tuple[float, float]:
    """Percentile interval of the mean over questions drawn with replacement.

    There are few different values, so a resample is one multinomial draw of how often each one
    comes.
    """
    distinct, counts = np.unique(values, return_counts=True)
    rng = np.random.default_rng(0)
    chunk = max(1, 20_000_000 // len(distinct))
    means: list[np.ndarray] = []
    for start in range(0, NUM_RESAMPLES, chunk):
        size = min(chunk, NUM_RESAMPLES - start)
        draws = rng.multinomial(len(values), counts / len(values), size=size)
        means.append(draws @ distinct / len(values))
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
    return float(low), float(high)
