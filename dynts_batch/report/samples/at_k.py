"""pass@k and majority@k of a run, whether all of its samples were run or not.

With `sampling.stop_when` the answers decide how many samples there are, so means over all of them
are biased. What is left is exact:

- agreed: pass@k and majority@k for k up to the number of samples that every question has, and
  majority@num_samples: the vote over those that were run decides that one, which is why it stopped.
- right: a question ends with its first right sample. So for every k it is known whether one of its
  first k is right, and the mean over questions is pass@k without bias, or a lower bound if samples
  failed. A vote would be biased.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dynts_batch.grading.pass_at_k import Vote, majority_at_k, pass_at_k
from dynts_batch.grading.stopping import Stopping

Votes = Sequence[Sequence[Vote]]
"""Of each question, in the order of its samples; questions without any are left out."""


@dataclass(frozen=True)
class AtK:
    """pass@k and majority@k, means over the questions of which they are known; None: of none."""

    k: int
    pass_at_k: float | None
    majority_at_k: float | None
    num_questions: int


def of_all(votes: Votes) -> list[AtK]:
    """For k = 1, 2, 4, ... and all samples. Empty without votes."""
    most = max(map(len, votes), default=0)
    ks = sorted({2**i for i in range(most.bit_length())} | {most}) if most else []
    return [_at_k([v for v in votes if len(v) >= k], k) for k in ks]


def of_stopped(stopping: Stopping, votes: Votes, certain: Votes) -> list[AtK]:
    """For a run that stopped by `stopping`. `certain`: votes of the samples that every question
    has."""
    if not votes:
        return []
    if stopping.when == "agreed":
        majority = _mean(votes, lambda v: majority_at_k(v, len(v)))
        decided = AtK(stopping.num_samples, None, majority, len(votes))
        return [*(found for found in of_all(certain) if found.k < decided.k), decided]
    most = stopping.num_samples
    ks = sorted({2**i for i in range(most.bit_length())} | {most})
    return [_first_right(votes, k) for k in ks]


def _at_k(votes: Votes, k: int) -> AtK:
    return AtK(
        k,
        _mean(votes, lambda v: pass_at_k(len(v), sum(correct for _, correct in v), k)),
        _mean(votes, lambda v: majority_at_k(v, k)),
        len(votes),
    )


def _first_right(votes: Votes, k: int) -> AtK:
    """pass@k. A question with fewer than k and none right is one whose samples failed, or were
    judged again; it counts as unsolved, as leaving it out would leave out unsolved ones only."""
    share = _mean(votes, lambda v: float(any(correct for _, correct in v[:k])))
    return AtK(k, share, None, len(votes))


def _mean(votes: Votes, of: Callable[[Sequence[Vote]], float]) -> float:
    return sum(map(of, votes)) / len(votes)
