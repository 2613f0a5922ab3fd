"""The order in which candidates are tried, and how far each must run: a pure function of known
losses.

A policy is a chain of budgets from the largest to the smallest. A budget is tried only once the one
before it is certified, so delta holds for the whole chain. m chains share delta equally
(Angelopoulos et al. 2021, arXiv 2110.01052). Nothing else decides what is certified. When to look
and when to give up may follow the data, since a bet may be looked at any time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil, sqrt

import numpy as np

from dynts_batch.report.tuning.betting import Judgement, judge

#: Questions before the first look: a candidate that fails everywhere fails by then.
FIRST_LOOK = 32
#: A look is at this many times the questions of the one before it, at most and at least.
_MOST_GROWTH, _LEAST_GROWTH = 3.0, 1.25
#: Fewest questions that are worth another look.
_LEAST_STEP = 8
#: A candidate is given up if even a loss this many standard errors below the one seen could not be
#: certified.
_HOPE = 2.0


@dataclass(frozen=True)
class Rung:
    """A candidate: a policy with its options, as in "h2o+accumulate=false", at a budget."""

    policy: str
    budget: int

    def __str__(self) -> str:
        return f"{self.policy} at {self.budget}"


@dataclass(frozen=True)
class Trial:
    """What is known of a rung."""

    judgement: Judgement
    num_seen: int
    """Questions looked at, including those left out."""
    num_wanted: int | None
    """How far it must be run for the next look; None: there is no further look."""


@dataclass(frozen=True)
class Terms:
    """The promise. It is frozen before the first question is answered: choosing after looking voids
    it."""

    most_loss: float
    """A share of right answers. Every certified candidate loses less than this."""
    delta: float
    """Probability that any candidate is certified although it loses as much."""


@dataclass(frozen=True)
class Ladder:
    """All candidates, in the order in which they are tried."""

    rungs: tuple[Rung, ...]
    terms: Terms

    @classmethod
    def of(cls, policies: Sequence[str], budgets: Sequence[int], terms: Terms) -> Ladder:
        """The largest budget first. At one budget, `policies` in the given order: the
        safest first."""
        descending = sorted(set(budgets), reverse=True)
        names = dict.fromkeys(policies)
        return cls(tuple(Rung(name, budget) for budget in descending for name in names), terms)

    @cached_property
    def delta(self) -> float:
        """Delta of one chain."""
        return self.terms.delta / len({rung.policy for rung in self.rungs})

    def next_need(
        self, losses: Mapping[Rung, np.ndarray], num_questions: int
    ) -> tuple[Rung, int] | None:
        """The rung to run next, and how many questions it must have answered. None when all is
        decided.

        `losses` [questions] are the known ones, in the one order of the questions; NaN if a
        question is left out. `num_questions`: how many there are at most.
        """
        for rung, trial in self.trials(losses, num_questions).items():
            if trial is not None and trial.num_wanted is not None:
                return rung, trial.num_wanted
        return None

    def trials(
        self, losses: Mapping[Rung, np.ndarray], num_questions: int
    ) -> dict[Rung, Trial | None]:
        """The trial of every rung; None if its chain has not reached it, or never will."""
        found: dict[Rung, Trial | None] = {}
        stopped: set[str] = set()
        for rung in self.rungs:
            if rung.policy in stopped:
                found[rung] = None
                continue
            known = losses.get(rung, np.empty(0))
            trial = try_rung(known, self.terms.most_loss, self.delta, num_questions)
            found[rung] = trial
            if trial.judgement.verdict != "holds":
                stopped.add(rung.policy)
        return found


def try_rung(losses: np.ndarray, most_loss: float, delta: float, num_questions: int) -> Trial:
    """Look again and again, each time at more of `losses`, as if they came one after the other.

    So a run that broke off goes on as if it had not.
    """
    num_seen = 0
    while True:
        seen = _kept(losses[:num_seen])
        judgement = judge(seen, most_loss, delta)
        if judgement.verdict != "open" or not _has_hope(
            seen, most_loss, delta, num_questions - num_seen
        ):
            return Trial(judgement, num_seen, None)
        wanted = _next_look(seen, num_seen, most_loss, delta, num_questions)
        if wanted > len(losses):
            return Trial(judgement, num_seen, wanted)
        num_seen = wanted


def questions_to_certify(
    losses: np.ndarray, most_loss: float, delta: float, num_more: int, *, hope: float = 0.0
) -> int | None:
    """How many questions it takes in all if `losses` repeat in a loop. None if `num_more` are too
    few.

    `hope`: how many standard errors the mean loss of the next ones is below that of `losses`.
    """
    num = len(losses)
    if num == 0:
        coming = np.zeros(num_more)
    else:
        # One more question counts as unknown: a few equal ones do not prove that all are equal.
        error = sqrt((float(np.var(losses)) * num + 0.25) / (num + 1) / (num + 1))
        coming = np.resize(np.maximum(losses - hope * error, -1.0), num_more)
    found = judge(np.concatenate([losses, coming]), most_loss, delta)
    return found.num if found.verdict == "holds" else None


def _has_hope(losses: np.ndarray, most_loss: float, delta: float, num_more: int) -> bool:
    if num_more <= 0:
        return False
    return questions_to_certify(losses, most_loss, delta, num_more, hope=_HOPE) is not None


def _next_look(
    losses: np.ndarray, num_seen: int, most_loss: float, delta: float, num_questions: int
) -> int:
    """Where a verdict is expected, but not too far from the last look."""
    if num_seen == 0:
        return min(FIRST_LOOK, num_questions)
    expected = questions_to_certify(losses, most_loss, delta, num_questions - num_seen)
    left_out = num_seen - len(losses)
    least, most = ceil(_LEAST_GROWTH * num_seen), ceil(_MOST_GROWTH * num_seen)
    if expected is None:
        return min(least, num_questions)
    wanted = max(expected + left_out, num_seen + _LEAST_STEP)
    # A small last step would start workers for a few questions.
    wanted = wanted if wanted <= _LEAST_GROWTH * most else most
    return min(wanted, num_questions)


def _kept(losses: np.ndarray) -> np.ndarray:
    return losses[~np.isnan(losses)]
