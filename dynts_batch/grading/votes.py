"""When a vote among the samples of one question is decided.

A rule sees the votes cast so far, in the order of their samples. There are two. `posterior` is
Adaptive-Consistency's (Aggarwal et al. 2023, arXiv 2305.11860), which the field uses; it bounds no
error rate. `evidence` is an e-process (Ramdas et al. 2023). It names an answer that is not the most
frequent one for at most 1 - confidence of all questions. Neither knows whether an answer is right.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from fractions import Fraction
from functools import lru_cache
from math import comb
from typing import Literal

RuleName = Literal["posterior", "evidence"]

#: The share of the error rate that the first answer named may use up. Each further answer may use
#: half of what is left then. At a confidence of .95 the first one still wins with 7 votes of 7.
_SHARE_OF_FIRST = Fraction(95, 100)


def winner(votes: Sequence[Hashable | None], rule: RuleName, confidence: float) -> Hashable | None:
    """The answer that has won, or None while the vote is open.

    `votes` holds the answers of the samples so far, in the order of their indices. Equal answers
    must compare equal; None is a sample without an answer. `confidence` is at least .5, below 1.
    """
    assert 0.5 <= confidence < 1, confidence
    return _RULES[rule](votes, Fraction(str(confidence)))


@lru_cache(maxsize=16)
def fewest_votes(rule: RuleName, confidence: float) -> int:
    """How many equal votes, and no others, decide. Fewer samples never can."""
    num = 1
    while winner(["same"] * num, rule, confidence) is None:
        num += 1
    return num


def votes_missing(votes: Sequence[Hashable | None], rule: RuleName, confidence: float) -> int:
    """How many more votes it takes at least until one answer can have won. 0: one has."""
    ranking = [n for _, n in Counter(vote for vote in votes if vote is not None).most_common(2)]
    first, second = (*ranking, 0, 0)[:2]
    missing = fewest_votes(rule, confidence) - first
    if missing <= 0:
        if winner(votes, rule, confidence) is not None:
            return 0
        missing = 1
    if rule == "posterior":  # the leader, who has the best chance, may get all of them
        while _chance_above_half(first + missing, second) < Fraction(str(confidence)):
            missing += 1
    return missing


def _by_posterior(votes: Sequence[Hashable | None], confidence: Fraction) -> Hashable | None:
    """The leader, once its posterior chance to beat the runner-up reaches `confidence`.

    To beat it is to have more than half of the votes of the two.
    """
    ranking = Counter(vote for vote in votes if vote is not None).most_common(2)
    if not ranking:
        return None
    (leader, first), second = ranking[0], ranking[1][1] if len(ranking) > 1 else 0
    return leader if _chance_above_half(first, second) >= confidence else None


def _by_evidence(votes: Sequence[Hashable | None], confidence: Fraction) -> Hashable | None:
    """An answer whose e-process against every rival has reached the bound of its place in line.

    An answer comes into question with its first vote, which must not count as evidence. So each
    process is divided by its value at that vote, and starts at 1. Samples without an answer are a
    rival that cannot win.
    """
    error_left, share = 1 - confidence, _SHARE_OF_FIRST
    for answer in dict.fromkeys(vote for vote in votes if vote is not None):
        error = error_left * share
        error_left, share = error_left - error, Fraction(1, 2)
        start = Counter(votes[: votes.index(answer) + 1])
        end = Counter(votes)
        rivals = [*(end.keys() - {answer}), _Unseen]
        weakest = min(
            _evidence(end[answer], end[rival]) / _evidence(1, start[rival]) for rival in rivals
        )
        if weakest >= 1 / error:
            return answer
    return None


class _Unseen:
    """An answer that nobody has given yet."""


@lru_cache(maxsize=1 << 12)
def _chance_above_half(first: int, second: int) -> Fraction:
    """P(theta > 1/2) under Beta(first + 1, second + 1), exactly."""
    num = first + second + 1
    return Fraction(sum(comb(num, i) for i in range(first + 1)), 2**num)


@lru_cache(maxsize=1 << 12)
def _evidence(first: int, second: int) -> Fraction:
    """How much likelier the votes are if `first` is the more frequent of two answers than if
    neither is.

    In the first case its share is uniform on 1/2..1. The ratio is 2^(n + 1) times the integral of
    x^first (1 - x)^second over 1/2..1, with n = first + second.
    """
    num = first + second
    return _chance_above_half(first, second) * 2 ** (num + 1) / ((num + 1) * comb(num, first))


_RULES: dict[RuleName, Callable[[Sequence[Hashable | None], Fraction], Hashable | None]] = {
    "posterior": _by_posterior,
    "evidence": _by_evidence,
}
