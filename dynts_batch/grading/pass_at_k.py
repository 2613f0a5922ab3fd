"""pass@k and majority@k of one question, exactly: the mean over all choices of k of its samples.

Names and conventions are NeMo-Skills'. A sample without an answer has no vote. If several answers
have the most votes, each wins equally often.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from functools import lru_cache
from math import comb

Vote = tuple[Hashable | None, bool]
"""A sample's answer, and whether it is right. Equal answers must compare equal; None: no answer."""


def pass_at_k(num_samples: int, num_correct: int, k: int) -> float:
    """Chance that at least one of `k` samples, drawn without replacement, is right.

    Source: Chen et al. 2021.
    """
    assert 0 <= num_correct <= num_samples, (num_correct, num_samples)
    assert 1 <= k <= num_samples, (k, num_samples)
    return 1.0 - comb(num_samples - num_correct, k) / comb(num_samples, k)


def majority_at_k(votes: Sequence[Vote], k: int) -> float:
    """Chance that the most frequent answer of `k` samples, drawn without replacement, is right."""
    assert 1 <= k <= len(votes), (k, len(votes))
    counts = Counter(vote for vote in votes if vote[0] is not None)
    answers = sorted((count, correct) for (_, correct), count in counts.items())
    return _chance_of_right(tuple(answers), len(votes) - counts.total(), k)


@lru_cache(maxsize=1 << 16)  # many questions of a run have the same counts
def _chance_of_right(answers: tuple[tuple[int, bool], ...], num_silent: int, k: int) -> float:
    """`answers` are (votes, whether it is right). `num_silent` samples have no vote."""
    num_samples = num_silent + sum(count for count, _ in answers)
    right = 0.0
    for most in range(1, min(k, max((count for count, _ in answers), default=0)) + 1):
        for (num_voting, num_first, num_right), ways in _ways(answers, most, k).items():
            if num_first:
                right += ways * comb(num_silent, k - num_voting) * num_right / num_first
    return right / comb(num_samples, k)


def _ways(
    answers: tuple[tuple[int, bool], ...], most: int, k: int
) -> dict[tuple[int, int, int], int]:
    """How many choices of at most `k` votes give no answer more than `most`.

    The keys are (votes chosen, answers with exactly `most`, right ones among these).
    """
    ways = {(0, 0, 0): 1}
    for count, correct in answers:
        longer: defaultdict[tuple[int, int, int], int] = defaultdict(int)
        for (num_voting, num_first, num_right), number in ways.items():
            for votes in range(min(count, most, k - num_voting) + 1):
                is_first = votes == most
                key = num_voting + votes, num_first + is_first, num_right + (is_first and correct)
                longer[key] += number * comb(count, votes)
        ways = dict(longer)
    return ways
