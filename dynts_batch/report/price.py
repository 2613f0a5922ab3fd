"""A run's dollars or joules, and prices per answer, right answer or token. Unknown stays None."""

from __future__ import annotations

from dataclasses import dataclass

from dynts_batch.config import CostConfig


@dataclass(frozen=True)
class Price:
    """`total` is the sum of the rows' shares, or None if any of them is unknown."""

    total: float | None
    num_answers: int
    """Rows that were run."""
    num_correct: int | None
    """None if no row was judged."""
    completion_tokens: int

    @property
    def per_answer(self) -> float | None:
        return self._over(self.num_answers)

    @property
    def per_correct(self) -> float | None:
        """None also if no answer is right."""
        return self._over(self.num_correct)

    @property
    def per_million_tokens(self) -> float | None:
        """Per million generated tokens."""
        return self._over(self.completion_tokens, scale=1e6)

    def per_correct_at(self, accuracy: float | None) -> float | None:
        """The price of a right answer if the share of right ones were `accuracy`: cost per attempt
        / pass rate."""
        if self.per_answer is None or not accuracy:
            return None
        return self.per_answer / accuracy

    def _over(self, count: int | None, scale: float = 1.0) -> float | None:
        if self.total is None or not count:
            return None
        return self.total / count * scale


def why_unpriced(cost: CostConfig) -> str:
    """Why rows that were run have no sum in dollars."""
    if cost.usd_per_kwh is not None:
        return "cost.usd_per_kwh is set, and the energy of some rows was not measured"
    if cost.usd_per_gpu_hour is not None:
        return "some rows are from before the price was set"
    return "set cost.usd_per_gpu_hour or cost.usd_per_kwh"
