"""What one question says: how much more often the full cache is right on it than a candidate.

Without references, it says whether the candidate's answer differs from the full cache's. The
candidate cannot lose more accuracy than that, whatever the references are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import nan
from typing import Any, Self

from dynts_batch.config import GradingConfig
from dynts_batch.grading import Grader

Row = Mapping[str, Any]
#: From a question's rows of the full cache and of a candidate, to the loss in -1..1. NaN if the
#: question says nothing.
Loss = Callable[[Sequence[Row], Sequence[Row]], float]


def graded_loss(full: Sequence[Row], candidate: Sequence[Row]) -> float:
    """The full cache's share right minus the candidate's.

    NaN if no row of the full cache is judged, because there is no reference or its rows failed. A
    row that fails only for the candidate is wrong.
    """
    judged = [row["correct"] for row in full if row["correct"] is not None]
    if not judged:
        return nan
    return sum(judged) / len(judged) - sum(bool(row["correct"]) for row in candidate) / len(
        candidate
    )


class Disagreement:
    """Loss without references: the share of samples whose answer differs from the full cache's.

    Samples are paired by index.
    """

    def __init__(self, grading: GradingConfig) -> None:
        """`grading` is the run's. Answers are compared as mathematics if it says so."""
        self._grader = Grader("math" if grading.kind == "math" else "exact")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._grader.close()

    def __call__(self, full: Sequence[Row], candidate: Sequence[Row]) -> float:
        """NaN if no row of the full cache has an answer: what it did not find cannot be lost."""
        others = {row["sample_index"]: row["extracted_answer"] for row in candidate}
        wanted = {
            row["sample_index"]: row["extracted_answer"]
            for row in full
            if row["extracted_answer"] is not None
        }
        if not wanted:
            return nan
        return sum(not self._is_kept(wanted[i], others.get(i)) for i in wanted) / len(wanted)

    def _is_kept(self, answer: str, other: str | None) -> bool:
        if answer == other:
            return True
        return other is not None and bool(self._grader.grade(rf"\boxed{{{other}}}", answer).correct)
