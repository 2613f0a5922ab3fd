"""Whether a cheaper run loses less than a given accuracy: a bet per question, readable at any time.

The bet is against "it loses `most_loss` or more". If that were true, the wealth would be a
nonnegative supermartingale that begins at 1. It would then reach 1/delta with probability at most
delta, however often one looks (Ville's inequality; Waudby-Smith and Ramdas 2024, arXiv 2010.09686).

Candidates are tested from the safest to the cheapest. Each is tested only after the one before it
is certified, so delta holds for all of them together (Angelopoulos et al. 2021, arXiv 2110.01052).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil, exp, inf, log
from typing import Literal, Self

Verdict = Literal["holds", "fails", "open"]

#: Counts as seen before the first question: one difference, with the largest variance of a coin.
_PRIOR_MEAN, _PRIOR_VARIANCE, _PRIOR_WEIGHT = 0.0, 0.25, 1.0


@dataclass(slots=True)
class LossTest:
    """The claim that a candidate loses less than `most_loss`, and its opposite, on one stream of
    questions."""

    most_loss: float
    """A share of right answers, between 0 and 1."""
    delta: float
    """Probability of a wrong verdict of either kind."""
    num: int = 0
    total: float = 0.0
    _squares: float = 0.0
    _log_for: float = 0.0
    _log_against: float = 0.0
    _verdict: Verdict = "open"

    def __post_init__(self) -> None:
        assert 0 < self.most_loss < 1, self.most_loss
        assert 0 < self.delta < 1, self.delta

    @property
    def wealth(self) -> float:
        """Wealth of the bettor who says that the loss is smaller than `most_loss`."""
        return exp(min(self._log_for, 700.0))

    @property
    def mean_loss(self) -> float | None:
        return self.total / self.num if self.num else None

    @property
    def verdict(self) -> Verdict:
        """A verdict other than "open" is final: later questions cannot withdraw a certificate."""
        return self._verdict

    def add(self, loss: float) -> Self:
        """The next question: the full cache's share right minus the candidate's, in -1..1."""
        assert -1 <= loss <= 1, loss
        # Stakes depend on earlier questions only. A stake is at most half of what can be lost.
        stake_for = self._stake(self.most_loss - self._mean, 1 - self.most_loss)
        stake_against = self._stake(self._mean - self.most_loss, 1 + self.most_loss)
        self._log_for += log(1 + stake_for * (self.most_loss - loss))
        self._log_against += log(1 + stake_against * (loss - self.most_loss))
        self.num += 1
        self.total += loss
        self._squares += loss * loss
        if self._verdict == "open" and max(self._log_for, self._log_against) >= log(1 / self.delta):
            self._verdict = "holds" if self._log_for > self._log_against else "fails"
        return self

    def extend(self, losses: Iterable[float]) -> Self:
        """Add questions until there is a verdict."""
        for loss in losses:
            if self._verdict != "open":
                break
            self.add(loss)
        return self

    @property
    def _mean(self) -> float:
        return (_PRIOR_WEIGHT * _PRIOR_MEAN + self.total) / (_PRIOR_WEIGHT + self.num)

    @property
    def _variance(self) -> float:
        weight = _PRIOR_WEIGHT + self.num
        squares = _PRIOR_WEIGHT * (_PRIOR_VARIANCE + _PRIOR_MEAN**2) + self._squares
        return max(squares / weight - self._mean**2, 1e-6)

    def _stake(self, edge: float, most_lost: float) -> float:
        """Nearly Kelly's stake: the expected gain over its second moment."""
        return min(max(edge / (self._variance + edge * edge), 0.0), 0.5 / most_lost)


def questions_needed(
    most_loss: float, delta: float, share_differing: float, true_loss: float = 0.0
) -> float:
    """About how many questions certify a loss below `most_loss`.

    The two runs differ in `share_differing` of the questions. The number comes from the growth of
    the best fixed stake. The adaptive stake needs about as many in the median, and up to 2.5 times
    as many in one of five cases. It is infinite if `true_loss` is not smaller than `most_loss`.
    """
    assert abs(true_loss) <= share_differing <= 1, (true_loss, share_differing)
    if true_loss >= most_loss:
        return inf
    better, worse = (share_differing - true_loss) / 2, (share_differing + true_loss) / 2

    def growth(stake: float) -> float:
        return (
            worse * log(1 - stake * (1 - most_loss))
            + better * log(1 + stake * (1 + most_loss))
            + (1 - share_differing) * log(1 + stake * most_loss)
        )

    low, high = 0.0, (1 - 1e-9) / (1 - most_loss)
    for _ in range(100):  # the function is concave
        third = (high - low) / 3
        if growth(low + third) < growth(high - third):
            low += third
        else:
            high -= third
    return float(ceil(log(1 / delta) / growth((low + high) / 2)))
