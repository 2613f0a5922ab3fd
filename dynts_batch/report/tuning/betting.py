"""Whether a cheaper run loses less than a given accuracy: a bet per question, readable at any time.

The bet is against "it loses `most_loss` or more". If that were true, the wealth would be a
nonnegative supermartingale that begins at 1. It would then reach 1/delta with probability at most
delta, however often one looks (Ville's inequality; Waudby-Smith and Ramdas 2024, arXiv 2010.09686).
The loss of a question is the full cache's share right minus the candidate's, in -1..1.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import ceil, exp, inf, log
from typing import Literal

import numpy as np

Verdict = Literal["holds", "fails", "open"]
VERDICTS: tuple[Verdict, ...] = ("open", "holds", "fails")

#: Counts as seen before the first question: one loss of 0, with the largest variance of a coin.
_PRIOR_VARIANCE, _PRIOR_WEIGHT = 0.25, 1.0
#: Step of the bounds on a loss.
_STEP = 0.001


@dataclass(frozen=True)
class Judgement:
    """What a stream of questions says of "the candidate loses less than `most_loss`" and its
    opposite."""

    verdict: Verdict
    """A verdict other than "open" is final: later questions cannot withdraw a certificate."""
    num: int
    """Questions until the verdict; all if there is none."""
    wealth: float
    """Wealth, at the verdict, of the bettor who says that the loss is smaller than `most_loss`."""


def judge(losses: np.ndarray, most_loss: float, delta: float) -> Judgement:
    """Judge `losses` [questions] in the order in which they are looked at.

    `delta`: the probability of a wrong verdict of either kind.
    """
    gain, _ = log_wealth(losses, most_loss)
    codes, nums = first_verdicts(losses[None], most_loss, delta)
    num = int(nums[0])
    wealth = exp(min(float(gain[num - 1]), 700.0)) if num else 1.0
    return Judgement(VERDICTS[int(codes[0])], num, wealth)


def first_verdicts(
    losses: np.ndarray, most_loss: float, delta: float
) -> tuple[np.ndarray, np.ndarray]:
    """Verdicts of many streams [streams, questions] at once.

    Returns each verdict [streams], as an index of `VERDICTS`, and the number of questions until it
    [streams].
    """
    gain, loss = log_wealth(losses, most_loss)
    crossed = np.maximum(gain, loss) >= log(1 / delta)
    has_verdict = crossed.any(axis=-1)
    num_streams, num = losses.shape
    if num == 0:
        return np.zeros(num_streams, int), np.zeros(num_streams, int)
    first = crossed.argmax(axis=-1)
    streams = np.arange(num_streams)
    side = np.where(gain[streams, first] > loss[streams, first], 1, 2)
    return np.where(has_verdict, side, 0), np.where(has_verdict, first + 1, num)


def log_wealth(losses: np.ndarray, most_loss: float) -> tuple[np.ndarray, np.ndarray]:
    """Log of the wealth after each question [..., questions], of both bettors.

    The first says that the loss is smaller than `most_loss`, the second that it is larger. Stakes
    depend on earlier questions only, and are at most half of what can be lost. They are nearly
    Kelly's: the expected gain over its second moment.
    """
    assert -1 < most_loss < 1, most_loss
    weight = _PRIOR_WEIGHT + np.arange(losses.shape[-1])
    squares = losses * losses
    mean = (np.cumsum(losses, axis=-1) - losses) / weight
    second = (_PRIOR_WEIGHT * _PRIOR_VARIANCE + np.cumsum(squares, axis=-1) - squares) / weight
    variance = np.maximum(second - mean * mean, 1e-6)

    def stake(edge: np.ndarray, most_lost: float) -> np.ndarray:
        return np.clip(edge / (variance + edge * edge), 0.0, 0.5 / most_lost)

    gain = np.log1p(stake(most_loss - mean, 1 - most_loss) * (most_loss - losses))
    loss = np.log1p(stake(mean - most_loss, 1 + most_loss) * (losses - most_loss))
    return np.cumsum(gain, axis=-1), np.cumsum(loss, axis=-1)


def bounds(losses: np.ndarray, delta: float) -> tuple[float, float]:
    """The least and the most that the loss may be.

    Each is true with probability at least 1 - delta, however often one looks. They are the
    outermost losses, in tenths of a point, against which no bet has been won.
    """
    won = log(1 / delta)
    levels = np.round(np.arange(-1 + _STEP, 1, _STEP), 3)
    low = next((x for x in levels if log_wealth(losses, x)[1].max(initial=0.0) < won), 1.0)
    high = next((x for x in levels[::-1] if log_wealth(losses, x)[0].max(initial=0.0) < won), -1.0)
    return float(low), float(high)


@lru_cache
def least_questions(most_loss: float, delta: float) -> int:
    """How many questions certify a loss below `most_loss` if no answer differs."""
    enough = ceil(100 + 4 * log(1 / delta) / most_loss)
    return judge(np.zeros(enough), most_loss, delta).num


def least_loss(num: int, delta: float) -> float | None:
    """The smallest loss, in half points, that `num` questions can certify, or None."""
    levels = (0.005 * step for step in range(1, 200))
    return next((x for x in levels if least_questions(round(x, 3), delta) <= num), None)


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
    return float(round(log(1 / delta) / growth((low + high) / 2)))
