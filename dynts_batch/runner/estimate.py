"""What a whole run will take, from the rows of a random sample of it. Arithmetic, nothing else.

An interval is the mean of the sample times the number of rows, give or take 1.96 standard errors: it
covers chance in the sample, not a batch or a machine other than the sample's.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

_NUM_ERRORS = 1.96


@dataclass(frozen=True, slots=True)
class Interval:
    """A total with its 95% interval."""

    total: float
    low: float
    high: float

    def times(self, factor: float) -> Interval:
        return Interval(self.total * factor, self.low * factor, self.high * factor)


def total_of(sample: Sequence[float], num_rows: int) -> Interval:
    """The sum over `num_rows` rows, of which `sample` is a random one of at least two rows."""
    mean = statistics.fmean(sample)
    if len(sample) == num_rows:
        error = 0.0
    else:
        left = 1 - len(sample) / num_rows  # what is sampled is known
        error = statistics.stdev(sample) * math.sqrt(left / len(sample))
    spread = _NUM_ERRORS * error
    return Interval(num_rows * mean, num_rows * max(0.0, mean - spread), num_rows * (mean + spread))


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
