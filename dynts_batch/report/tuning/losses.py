"""What one question says: how much more often the full cache is right on it than a candidate.

Without references, whether the candidate's answer differs from the full cache's: it can then lose no more accuracy than
that, whatever the references would have been.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import nan
from typing import Any, Self

from dynts_batch.config import GradingConfig
from dynts_batch.grading import Grader

Row = Mapping[str, Any]
#: From the full cache's rows of a question and a candidate's, to the loss in -1..1; NaN where the question says nothing.
Loss = Callable[[Sequence[Row], Sequence[Row]], float]


def graded_loss(full: Sequence[Row], candidate: Sequence[Row]) -> float:
    """The full cache's share right minus the candidate's. NaN where nothing of the full cache's is judged: there is no
    reference, or its rows failed. What fails of the candidate's alone is wrong."""
    judged = [row["correct"] for row in full if row["correct"] is not None]
    if not judged:
        return nan
    return sum(judged) / len(judged) - sum(bool(row["correct"]) for row in candidate) / len(
        candidate
    )


class Disagreement:
    """Loss without references: the share of the samples whose answer differs from the full cache's of the same index."""

    def __init__(self, grading: GradingConfig) -> None:
        """`grading` is the run's: answers are compared as mathematics where it says so."""
        self._grader = Grader("math" if grading.kind == "math" else "exact")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._grader.close()

    def __call__(self, full: Sequence[Row], candidate: Sequence[Row]) -> float:
        """NaN where all rows of the full cache failed. An answer that it did not find cannot be lost."""
        others = {row["sample_index"]: row["extracted_answer"] for row in candidate}
        wanted = {
            row["sample_index"]: row["extracted_answer"]
            for row in full
            if row["finish_reason"] != "error"
        }
        if not wanted:
            return nan
        return sum(not self._is_kept(wanted[i], others.get(i)) for i in wanted) / len(wanted)

    def _is_kept(self, answer: str | None, other: str | None) -> bool:
        if answer is None or answer == other:
            return True
        return other is not None and bool(self._grader.grade(rf"\boxed{{{other}}}", answer).correct)
