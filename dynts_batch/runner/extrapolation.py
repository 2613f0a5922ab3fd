"""What a whole run will take, from the rows of a random sample of it. Arithmetic, nothing else.

An interval is the mean of the sample times the number of rows, give or take 1.96 standard errors.
It covers chance in the sample and, if it is made to, a fuller batch. It covers no other machine.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from dynts_batch.report.statistics import NUM_STANDARD_ERRORS

#: From this share of the run's batch on, the sample's is taken for the same.
_SAME_BATCH = 0.9


@dataclass(frozen=True, slots=True)
class Interval:
    """A total with its 95% interval; `total` is None where only the bounds are known."""

    total: float | None
    low: float
    high: float
    is_of_all: bool = False
    """Whether the sample was all there is, which leaves no chance."""

    def times(self, factor: float) -> Interval:
        total = None if self.total is None else self.total * factor
        return Interval(total, self.low * factor, self.high * factor, self.is_of_all)

    def __add__(self, other: Interval) -> Interval:
        is_known = self.total is not None and other.total is not None
        total = self.total + other.total if is_known else None  # type: ignore[operator]
        is_of_all = self.is_of_all and other.is_of_all
        return Interval(total, self.low + other.low, self.high + other.high, is_of_all)

    def in_fuller_batch(self, share: float) -> Interval:
        """Time, energy or price of a device, if the sample's batch was only `share` of the run's.

        In a fuller batch a row takes no more than it did, and no less than `share` of that, since a
        step of more rows takes no less.
        """
        total = self.total if share >= _SAME_BATCH else None
        return Interval(total, self.low * share, self.high, self.is_of_all and share == 1)


def total_of(sample: Sequence[float], num_rows: int) -> Interval:
    """The sum over `num_rows` rows, of which `sample` is a random one of at least two rows."""
    mean = statistics.fmean(sample)
    if len(sample) == num_rows:
        error = 0.0
    else:
        left = 1 - len(sample) / num_rows  # what is sampled is known
        error = statistics.stdev(sample) * math.sqrt(left / len(sample))
    spread = NUM_STANDARD_ERRORS * error
    low, high = num_rows * max(0.0, mean - spread), num_rows * (mean + spread)
    return Interval(num_rows * mean, low, high, is_of_all=len(sample) == num_rows)


@dataclass(frozen=True, slots=True)
class Memory:
    """The KV arena of one worker, as the sample found it."""

    arena_bytes: int
    max_seqs: int
    most_full_bytes: int
    """What the longest sequence of the sample would have held without eviction."""

    @property
    def num_full(self) -> int:
        """Sequences of that length that the arena's bytes would hold without eviction."""
        return self.arena_bytes // self.most_full_bytes if self.most_full_bytes else self.max_seqs

    def verdict(self, *, wanted_seqs: int | None, rows_per_worker: int) -> str:
        """Whether KV memory bounds the batch. `wanted_seqs` is memory.max_seqs."""
        if rows_per_worker <= self.max_seqs:
            return f"no: all {rows_per_worker:,} rows of a worker fit at once"
        if wanted_seqs is not None and self.max_seqs >= wanted_seqs:
            return f"no: memory.max_seqs ({wanted_seqs:,}) bounds the batch, not memory"
        return (
            f"yes: {self.max_seqs:,} rows fit at once; without eviction {self.num_full:,} would, as"
            " long as the longest of the sample"
        )
