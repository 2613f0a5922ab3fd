"""The driver: hands out shards to whoever has room, and keeps the books when a worker dies.

Workers pull: each is given more as soon as it reports room, several shards at a time, and nobody
waits for anybody. There are as many as there is work for, within the bounds that are set. Knows
nothing about Ray (a Fleet does) nor about engines.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from dynts_batch.errors import ConfigError, DyntsError
from dynts_batch.runner.assigner import Assigner
from dynts_batch.runner.ledger import Ledger
from dynts_batch.runner.limits import NO_LIMITS, Limits, Used
from dynts_batch.runner.messages import (
    Assignment,
    Died,
    Event,
    Failed,
    Left,
    Loaded,
    Orders,
    Report,
    Reported,
    Totals,
)
from dynts_batch.runner.notices import Notices
from dynts_batch.runner.preflight import PreparedRun

REPORT_S = 1.0
_LEAST_REPORT_S = 0.02
_CLOSE_TIMEOUT_S = 60.0


class Fleet(Protocol):
    """Workers, each with one call under way at most."""

    def start(self, *, max_seqs: int | None = None) -> None:
        """Begin to load one more worker; `wait` tells when it is ready. See Worker for `max_seqs`."""

    def send(self, worker_id: str, assignments: Sequence[Assignment], orders: Orders) -> None:
        """Let a worker work until its next report; see Worker.work."""

    def retire(self, worker_id: str) -> None:
        """Ask a worker without a call to store what it has and end: `wait` tells."""

    def cancel_loading(self) -> None:
        """Forget the workers that are not ready yet."""

    def wait(self, timeout_s: float) -> list[Event]:
        """What happened; none after `timeout_s`."""

    def close(self) -> None:
        """Ask all workers to store what they have and end: `wait` tells of each."""


@dataclass(frozen=True)
class State:
    """Where a run stands, to be shown. Totals are of this start of the run only, and count rows
    that were lost and run again each time."""

    num_rows: int
    num_done: int
    num_workers: int
    """Loaded ones."""
    num_running: int
    totals: Totals
    elapsed_s: float
    """Since the first worker was ready."""
    spent_usd: float = 0.0
    """By all starts of the run, what was lost included."""


class Driver:
    """One start of a run."""

    def __init__(
        self,
        run: PreparedRun,
        fleet: Fleet,
        *,
        num_workers: int,
        show: Callable[[State], None],
        warn: Callable[[str], None],
        limits: Limits = NO_LIMITS,
    ) -> None:
        """`num_workers` bounds their number from above, workers.min from below while there is work."""
        self._run, self._fleet, self._limits = run, fleet, limits
        self._min_workers = min(run.config.workers.min, num_workers)
        self._max_workers = num_workers
        self._show, self._warn = show, warn
        self._notices = Notices(warn)
        max_attempts = run.config.run.max_attempts
        self._ledger = Ledger(run.plan, run.shards_to_do, max_attempts=max_attempts)
        self._assigner = Assigner(run)
        self._num_loading = 0
        self._max_seqs: list[int] = []
        self._reports: dict[str, Report | None] = {}
        self._idle: dict[str, int] = {}
        self._retired: set[str] = set()
        self._totals = Totals()
        self._spent_usd: dict[str, float] = {}
        self._deaths_in_a_row = 0
        self._started_s: float | None = None
        self._is_draining = False
        self._report_s, self._max_busy_s = _LEAST_REPORT_S, math.inf
        self.limit: str | None = None
        """The cap for whose sake nothing more is admitted, in words."""

    def run(self, is_stopped: Callable[[], bool]) -> bool:
        """Work until every unit has a row, a limit is reached or `is_stopped`; whether all have one.

        In any case all that is done is in the run directory when it ends.

        Raises:
            DyntsError: what a worker raised, or that workers die without getting anything done.
        """
        began_s = time.monotonic()
        try:
            while not (self._ledger.is_complete or is_stopped() or self._is_at_limit(began_s)):
                self._scale()
                for event in self._fleet.wait(REPORT_S):
                    self._handle(event)
                for worker_id in list(self._idle):
                    self._feed(worker_id, self._idle.pop(worker_id), is_idle=True)
                self._show(self._state())
        except DyntsError:
            self._close()  # what is wrong is known: let the others store what they have
            raise
        if error := self._close():
            raise error
        return self._ledger.is_complete

    # ---- what happened -------------------------------------------------------------------------

    def _handle(self, event: Event) -> None:
        match event:
            case Loaded(worker_id, info):
                self._num_loading -= 1
                self._started_s = self._started_s or time.monotonic()
                self._reports[worker_id] = None
                self._notices.loaded(worker_id, info.max_seqs)
                self._idle[worker_id] = 2 * info.max_seqs
            case Reported(worker_id, report):
                self._record(worker_id, report)
                self._feed(worker_id, report.num_wanted, is_idle=report.is_idle)
            case Left(worker_id, report):
                self._record(worker_id, report)
                self._remove(worker_id, None)
                if worker_id not in self._retired:
                    self._warn(
                        f"worker {worker_id} stored its rows and left: its machine goes away"
                    )
            case Died(worker_id, reason):
                self._bury(worker_id, reason, is_out_of_memory=event.is_out_of_memory)
            case Failed(worker_id, error):
                self._remove(worker_id, str(error))
                raise error

    def _record(self, worker_id: str, report: Report) -> None:
        self._notices.reported(worker_id, report)
        finished = report.finished
        self._ledger.record(worker_id, finished.units, finished.committed, finished.saved)
        self._reports[worker_id] = report
        self._totals += finished.totals
        if report.spent_usd is not None:
            self._spent_usd[worker_id] = report.spent_usd
        elif self._limits.max_cost_usd is not None:
            raise ConfigError(
                "run.max_cost_usd cannot be kept where the energy is not measured: set"
                " cost.usd_per_gpu_hour, and cost.usd_per_kwh to null"
            )
        if finished.units:
            self._deaths_in_a_row = 0

    def _remove(self, worker_id: str, reason: str | None) -> None:
        """Take a worker out of the books; `reason`: see Ledger.release."""
        self._ledger.release(worker_id, reason)
        # One that never was ready has no report.
        self._num_loading -= worker_id not in self._reports
        self._reports.pop(worker_id, None)
        self._idle.pop(worker_id, None)

    def _bury(self, worker_id: str, reason: str, *, is_out_of_memory: bool) -> None:
        num_quarantined = len(self._ledger.quarantined)
        report = self._reports.get(worker_id)
        self._record_commits(worker_id)
        self._remove(worker_id, reason)
        if worker_id in self._retired:
            return  # it had nothing left to do
        if is_out_of_memory and report is not None:
            self._max_seqs.append(max(1, report.max_seqs // 2))
        self._deaths_in_a_row += 1
        if len(self._ledger.quarantined) > num_quarantined:
            self._deaths_in_a_row = 0
        if self._deaths_in_a_row > self._run.config.run.max_attempts * self._max_workers:
            raise DyntsError(
                f"{self._deaths_in_a_row} workers in a row died without finishing a row, the last"
                f" one of: {reason}"
            )
        self._warn(f"worker {worker_id} died and is replaced, its rows are run again: {reason}")

    def _record_commits(self, worker_id: str) -> None:
        """Find the shards that a worker committed and did not live to report."""
        held = self._ledger.held_by(worker_id)
        if not held:
            return
        run, ledger = self._run, self._ledger
        on_disk = run.run_dir.finished_shards() - run.committed_shards
        committed = [shard for shard in held if shard in on_disk]
        units = [unit for shard in committed for unit in run.plan.units(shard)]
        ledger.record(worker_id, units, committed, [])

    # ---- what to do ----------------------------------------------------------------------------

    def _scale(self) -> None:
        """Start workers while more work waits than there are; let idle ones go when none waits."""
        num_alive = len(self._reports) + self._num_loading
        if self._is_draining:
            return
        if num_pending := self._ledger.num_pending:
            num_busy = len(self._reports) - len(self._idle)
            wanted = min(self._max_workers, max(self._min_workers, num_busy + num_pending))
            for _ in range(wanted - num_alive):
                self._fleet.start(max_seqs=self._max_seqs.pop() if self._max_seqs else None)
                self._num_loading += 1
            return
        if self._num_loading:
            self._fleet.cancel_loading()
            num_alive, self._num_loading = num_alive - self._num_loading, 0
        for worker_id in list(self._idle)[: max(0, num_alive - self._min_workers)]:
            del self._idle[worker_id]
            self._retired.add(worker_id)
            self._fleet.retire(worker_id)

    def _feed(self, worker_id: str, num_wanted: int, *, is_idle: bool) -> None:
        """Send `worker_id` back to work with what it wants, as far as there is any.

        Nobody takes more than its part of what is left, so that all share the tail.
        """
        assignments: list[Assignment] = []
        num_rows = 0
        most = 0 if self._is_draining else -(-self._ledger.num_pending // self._max_workers)
        while num_rows < num_wanted and len(assignments) < most:
            lease = self._ledger.take(worker_id)
            if lease is None:
                break
            assignments.append(self._assigner.assignment(lease, self._ledger.quarantined))
            num_rows += len(assignments[-1].items)
        if assignments or not is_idle:
            has_more = not self._is_draining and self._ledger.has_work_for(worker_id)
            orders = Orders(has_more, self._is_draining, self._report_s, self._max_busy_s)
            self._fleet.send(worker_id, assignments, orders)
        else:
            self._idle[worker_id] = num_wanted

    def _is_at_limit(self, began_s: float) -> bool:
        """Whether a cap ends the run now; from shortly before that on, nothing more is admitted."""
        used = self._used((time.monotonic() - began_s) / 3600)
        left_s = self._limits.left_s(used)
        self._report_s = min(REPORT_S, max(_LEAST_REPORT_S, left_s / 20))
        self._max_busy_s = left_s / 20
        if near := self._limits.near(used):
            self._is_draining, self.limit = True, near
        is_drained = self._is_draining and len(self._idle) == len(self._reports)
        return is_drained or self._limits.reached(used) is not None

    def _used(self, hours: float) -> Used:
        reports = [report for report in self._reports.values() if report is not None]
        in_flight = [report.num_in_engine for report in reports]
        totals = self._totals
        num_rows = max(1, totals.rows)
        rate = (totals.cost_usd or 0.0) / totals.device_s if totals.device_s else 0.0
        return Used(
            cost_usd=sum(self._spent_usd.values()),
            hours=hours,
            usd_per_s=rate * len(reports),
            more_cost_usd=sum(in_flight) * (totals.cost_usd or 0.0) / num_rows,
            # Those that run together end together, or nearly so.
            more_hours=max(in_flight, default=0) * totals.device_s / num_rows / 3600,
        )

    def _close(self) -> DyntsError | None:
        """End all workers; what kept one of them from storing what it had."""
        error: DyntsError | None = None
        self._fleet.close()
        deadline_s = time.monotonic() + _CLOSE_TIMEOUT_S
        while self._reports and time.monotonic() < deadline_s:
            for event in self._fleet.wait(REPORT_S):
                match event:
                    case Reported(worker_id, report):  # its last call before closing
                        self._record(worker_id, report)
                    case Left(worker_id, report):
                        self._record(worker_id, report)
                        self._remove(worker_id, None)
                    case Died(worker_id, reason):
                        self._remove(worker_id, reason)
                    case Failed(worker_id, error):
                        self._remove(worker_id, str(error))
        self._show(self._state())
        return error

    def _state(self) -> State:
        reports = [report for report in self._reports.values() if report is not None]
        return State(
            num_rows=self._run.plan.num_units,
            num_done=self._ledger.num_done,
            num_workers=len(self._reports),
            num_running=sum(report.num_running for report in reports),
            totals=self._totals,
            elapsed_s=time.monotonic() - (self._started_s or time.monotonic()),
            spent_usd=self._limits.spent_usd + sum(self._spent_usd.values()),
        )
