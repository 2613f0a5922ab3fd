"""Caps on what a run may take, in dollars and hours, and what it has taken.

    |-- work --------------------|-- no more is admitted --|
                                 ^ what is in flight        ^ the cap: stop at once
                                   would reach the cap

A sequence that is cut off is lost and yet paid for, so a run stops admitting in time for the last
ones to end.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import pyarrow.compute as pc

from dynts_batch.config import Config
from dynts_batch.data.run_dir import RunDir
from dynts_batch.runner.driver.roster import Roster
from dynts_batch.runner.messages import Tally

#: A worker reports after so long at the latest, and where a cap is near more often.
REPORT_S = 1.0
_LEAST_REPORT_S = 0.02


@dataclass(frozen=True, slots=True)
class Used:
    """What this start of a run has taken, and what the requests in flight will still take."""

    cost_usd: float = 0.0
    hours: float = 0.0
    usd_per_s: float = 0.0
    """Of all workers at work."""
    more_cost_usd: float = 0.0
    more_hours: float = 0.0

    @classmethod
    def of(cls, workers: Roster, tally: Tally, *, cost_usd: float, hours: float) -> Used:
        """What is in flight will cost what the rows of `tally` did: those done so far."""
        in_flight = [report.num_in_engine for report in workers.reports]
        num_rows = max(1, tally.rows - tally.skipped)
        rate = (tally.cost_usd or 0.0) / tally.device_s if tally.device_s else 0.0
        # Those that run together end together, or nearly so.
        more_s = max(in_flight, default=0) * tally.device_s / num_rows
        usd_per_row = (tally.cost_usd or 0.0) / num_rows
        return cls(
            cost_usd=cost_usd,
            hours=hours,
            usd_per_s=rate * len(in_flight),
            more_cost_usd=sum(in_flight) * usd_per_row + len(workers.idle) * rate * more_s,
            more_hours=more_s / 3600,
        )


@dataclass(frozen=True, slots=True)
class Limits:
    """The caps of a run; None is no cap."""

    max_cost_usd: float | None = None
    max_hours: float | None = None
    spent_usd: float = 0.0
    """By earlier starts of the run, and earlier parts of this one."""
    spent_hours: float = 0.0
    """By earlier parts of this start."""

    @classmethod
    def of(cls, config: Config, *, spent_usd: float, spent_hours: float = 0.0) -> Limits:
        return cls(config.run.max_cost_usd, config.run.max_hours, spent_usd, spent_hours)

    def reached(self, used: Used) -> str | None:
        """The cap that is reached, in words."""
        return self._over(used, used.cost_usd, used.hours)

    def near(self, used: Used) -> str | None:
        """The cap that is reached once all that is in flight has ended, in words."""
        cost_usd, hours = used.cost_usd + used.more_cost_usd, used.hours + used.more_hours
        return self._over(used, cost_usd, hours)

    def left_s(self, used: Used) -> float:
        """Seconds until the first cap is reached at that rate; 0 while it is unknown."""
        left_s = math.inf
        if self.max_hours is not None:
            left_s = (self.max_hours - self.spent_hours - used.hours) * 3600
        if self.max_cost_usd is not None:
            left_usd = self.max_cost_usd - self.spent_usd - used.cost_usd
            left_s = min(left_s, left_usd / used.usd_per_s if used.usd_per_s > 0 else 0.0)
        return max(0.0, left_s)

    def _over(self, used: Used, cost_usd: float, hours: float) -> str | None:
        if self.max_cost_usd is not None and self.spent_usd + cost_usd >= self.max_cost_usd:
            spent_usd = self.spent_usd + used.cost_usd
            return f"run.max_cost_usd ({self.max_cost_usd:g}), with ${spent_usd:,.4f} spent"
        if self.max_hours is not None and self.spent_hours + hours >= self.max_hours:
            spent_hours = self.spent_hours + used.hours
            return f"run.max_hours ({self.max_hours:g}), after {spent_hours:,.4f} hours"
        return None


NO_LIMITS = Limits()


class Brake:
    """As a cap comes near, reports come more often; then nothing more is admitted."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.report_s, self.max_busy_s = _LEAST_REPORT_S, math.inf
        """See Orders."""
        self.limit: str | None = None
        """The cap for whose sake nothing more is admitted, in words."""

    @property
    def is_draining(self) -> bool:
        """Whether nothing more is admitted."""
        return self.limit is not None

    def press(self, used: Used) -> None:
        """Take in what the run has taken by now."""
        left_s = self._limits.left_s(used)
        self.report_s = min(REPORT_S, max(_LEAST_REPORT_S, left_s / 20))
        self.max_busy_s = left_s / 20
        self.limit = self._limits.near(used) or self.limit


def spent_usd(run_dir: RunDir) -> float:
    """What the workers of all starts of the run have cost so far, as their telemetry says.

    A worker that was killed may have cost a little more: it writes every run.checkpoint_s seconds.
    Raises: RunDirError where some of it cannot be read: a cap that forgets what was spent is none.
    """
    spent: dict[str, float] = {}
    for samples in run_dir.read_telemetry():
        worker_id = samples["worker_id"][0].as_py()
        cost_usd = pc.max(samples["cost_usd"]).as_py()
        spent[worker_id] = max(spent.get(worker_id, 0.0), cost_usd or 0.0)
    return sum(spent.values())
