"""Two runs on the same questions: which is right more often, and is that more than chance?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dynts_batch.report.measures import Measures
from dynts_batch.report.statistics import PairedComparison, compare

MAX_RUNS_WITH_ALL_PAIRS = 4


@dataclass(frozen=True)
class Pair:
    """`b` against `a`."""

    a: Measures
    b: Measures
    found: PairedComparison | None
    """None if they share no judged question."""
    num_left_out: int
    """Questions of one run that the other lacks, or has only as errors or unjudged."""

    @property
    def names(self) -> str:
        return f"{self.b.label} minus {self.a.label}"


def compare_runs(a: Measures, b: Measures) -> Pair:
    """Pair two runs by request_id. A question that failed in one of them is left out."""
    shared = [name for name in a.questions if name in b.questions]
    shares_a, shares_b = (np.array([run.questions[name] for name in shared]) for run in (a, b))
    ids = {name for run in (a, b) for name in run.run.table["request_id"].to_pylist()}
    return Pair(a, b, compare(shares_a, shares_b), len(ids) - len(shared))


def oriented_pair(runs: Sequence[Measures], x: Measures, y: Measures) -> Pair:
    """Two of `runs`, always the same way round: minus the full cache, or else minus the earlier."""
    a, b = (run for run in runs if run is x or run is y)
    if _is_full(b) and not _is_full(a):
        a, b = b, a
    return compare_runs(a, b)


def pairs_to_show(runs: Sequence[Measures]) -> list[Pair]:
    """Every two runs in their order. Many runs: each against the full cache, or else against the
    first."""
    if len(runs) <= MAX_RUNS_WITH_ALL_PAIRS:
        return [oriented_pair(runs, a, b) for i, a in enumerate(runs) for b in runs[i + 1 :]]
    base = next(filter(_is_full, runs), runs[0])
    return [oriented_pair(runs, base, run) for run in runs if run is not base]


def _is_full(run: Measures) -> bool:
    return run.totals.config.policy.name == "full"
