"""What a tuning found: the verdict on every candidate, what it costs, and the one to run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from dynts_batch.report.tuning.betting import bounds
from dynts_batch.report.tuning.ladder import Ladder, Rung, Trial, questions_to_certify
from dynts_batch.report.tuning.losses import Row
from dynts_batch.report.tuning.spent import Spent

#: A larger number of further questions is not reported.
_MOST_QUESTIONS = 100_000


@dataclass(frozen=True)
class Tried:
    """A rung that was run."""

    rung: Rung
    trial: Trial
    losses: np.ndarray
    """Losses [questions] that were looked at, without those left out."""
    spent: Spent
    """What it took on all questions looked at."""
    spent_full: Spent
    """What the full cache took on the same questions."""
    bounds: tuple[float, float]
    """Bounds of the loss, see betting.bounds."""

    @property
    def is_certified(self) -> bool:
        return self.trial.judgement.verdict == "holds"

    @property
    def mean_loss(self) -> float:
        return float(self.losses.mean()) if len(self.losses) else 0.0

    @property
    def share_differing(self) -> float:
        return float((self.losses != 0).mean()) if len(self.losses) else 0.0

    @property
    def cost(self) -> float | None:
        """Cost as a share of the full cache's on the same questions."""
        return self.spent.cost_over(self.spent_full)

    @property
    def memory(self) -> float | None:
        """KV bytes as a share of the full cache's on the same questions."""
        full = self.spent_full.stored_bytes
        return self.spent.stored_bytes / full if full else None


@dataclass(frozen=True)
class Surer:
    """What a promise about a rung would take, if further questions are like those seen."""

    most_loss: float
    delta: float
    num_questions: int | None
    """All questions that it takes; None if no number would do."""
    num_more: int
    """Those of them that are still to be answered."""
    spent_seen: Spent
    """What the rung and the full cache took on the questions seen."""
    num_seen: int

    @property
    def usd(self) -> float | None:
        """Dollars of the questions still to be answered."""
        usd = self.spent_seen.usd
        return None if usd is None else usd / self.num_seen * self.num_more

    @property
    def device_s(self) -> float:
        return self.spent_seen.device_s / self.num_seen * self.num_more


@dataclass(frozen=True)
class Outcome:
    """All that a tuning has to say."""

    ladder: Ladder
    tried: tuple[Tried, ...]
    num_questions: int
    """All questions that there are."""
    num_samples: int
    spent: Spent
    """What all runs took."""

    @classmethod
    def of(
        cls,
        ladder: Ladder,
        losses: Mapping[Rung, np.ndarray],
        rows: Mapping[Rung, Sequence[Sequence[Row]]],
        full: Sequence[Sequence[Row]],
        num_questions: int,
        num_samples: int,
        spent: Spent,
    ) -> Outcome:
        """`rows` and `full` hold the rows of each question, in the same order as `losses`."""
        tried = []
        for rung, trial in ladder.trials(losses, num_questions).items():
            if trial is None:
                continue
            num = trial.num_seen
            known = losses.get(rung, np.empty(0))[:num]
            seen = known[~np.isnan(known)]
            mine, its = rows.get(rung, [])[:num], full[:num]
            between = bounds(seen, ladder.delta)
            tried.append(Tried(rung, trial, seen, Spent.on(mine), Spent.on(its), between))
        return cls(ladder, tuple(tried), num_questions, num_samples, spent)

    @cached_property
    def choice(self) -> Tried | None:
        """The certified rung that costs least. Of equal costs the smaller budget wins.

        None if none is certified, or if all cost more than the full cache.
        """
        certified = [tried for tried in self.tried if tried.is_certified]
        cheapest = min(certified, key=lambda t: (_price(t), t.rung.budget), default=None)
        return cheapest if cheapest is not None and _price(cheapest) <= 1 else None

    @property
    def share_of_all(self) -> float:
        """Rows that were run, over those of every candidate and the full cache on all questions."""
        arms = len(self.ladder.rungs) + 1
        return self.spent.num_rows / (arms * self.num_questions * self.num_samples)

    def surer(self, tried: Tried) -> list[Surer]:
        """What a stronger promise takes: a tenth of delta, or half the loss.

        For a rung that is not certified: what its own promise takes.
        """
        terms = self.ladder.terms
        wanted = [(terms.most_loss, terms.delta / 10), (terms.most_loss / 2, terms.delta)]
        if not tried.is_certified:
            wanted = [(terms.most_loss, terms.delta)]
        return [self._surer(tried, *each) for each in wanted]

    def _surer(self, tried: Tried, most_loss: float, delta: float) -> Surer:
        of_chain = delta * self.ladder.delta / self.ladder.terms.delta
        found = questions_to_certify(tried.losses, most_loss, of_chain, _MOST_QUESTIONS)
        num_more = 0 if found is None else max(0, found - len(tried.losses))
        both = tried.spent + tried.spent_full
        return Surer(most_loss, delta, found, num_more, both, tried.trial.num_seen)


def _price(tried: Tried) -> float:
    """Cost over the full cache's. If not even device time is known, memory over the full
    cache's."""
    known = [share for share in (tried.cost, tried.memory) if share is not None]
    return known[0] if known else 1.0
