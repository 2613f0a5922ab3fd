"""The driver: hands out shards to whoever has room, and keeps the books when a worker dies.

Workers pull: each is given more as soon as it reports room, several shards at a time, and nobody
waits for anybody. Knows nothing about Ray (a Fleet does) nor about engines.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from dynts_batch.errors import DyntsError, QuarantinedError, RowError
from dynts_batch.runner.ledger import Lease, Ledger
from dynts_batch.runner.messages import (
    Assignment,
    Died,
    Event,
    Item,
    Left,
    Loaded,
    Report,
    Reported,
    Totals,
)
from dynts_batch.runner.preflight import PreparedRun

_POLL_S = 1.0
_CLOSE_TIMEOUT_S = 60.0


class Fleet(Protocol):
    """Workers, each with one call under way at most."""

    def start(self) -> None:
        """Begin to load one more worker; `wait` tells when it is ready."""

    def send(self, worker_id: str, assignments: Sequence[Assignment], *, has_more: bool) -> None:
        """Let a worker work until its next report; see Worker.work."""

    def wait(self, timeout_s: float) -> list[Event]:
        """What happened; none after `timeout_s`. Raises: DyntsError, what a worker raised."""

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
    ) -> None:
        self._run, self._fleet, self._num_workers = run, fleet, num_workers
        self._show, self._warn = show, warn
        max_attempts = run.config.run.max_attempts
        self._ledger = Ledger(run.plan, run.shards_to_do, max_attempts=max_attempts)
        self._may_have_checkpoint = set(run.checkpointed_shards)
        self._reports: dict[str, Report | None] = {}
        self._idle: dict[str, int] = {}
        self._totals = Totals()
        self._deaths_in_a_row = 0
        self._started_s: float | None = None

    def run(self, is_stopped: Callable[[], bool]) -> bool:
        """Work until every unit has a row, or until `is_stopped`; whether every unit has one.

        Either way all that is done is in the run directory when it returns.

        Raises:
            DyntsError: what a worker raised, or that workers die without getting anything done.
        """
        for _ in range(self._num_workers):
            self._fleet.start()
        while not self._ledger.is_complete and not is_stopped():
            for event in self._fleet.wait(_POLL_S):
                self._handle(event)
            for worker_id in list(self._idle):
                self._feed(worker_id, self._idle.pop(worker_id), is_idle=True)
            self._show(self._state())
        self._close()
        return self._ledger.is_complete

    def _handle(self, event: Event) -> None:
        match event:
            case Loaded(worker_id, info):
                self._started_s = self._started_s or time.monotonic()
                self._reports[worker_id] = None
                self._idle[worker_id] = 2 * info.max_seqs
            case Reported(worker_id, report):
                self._record(worker_id, report)
                self._feed(worker_id, report.num_wanted, is_idle=report.is_idle)
            case Left(worker_id, report):
                self._record(worker_id, report)
                self._ledger.release(worker_id, None)
                del self._reports[worker_id]
            case Died(worker_id, reason):
                self._bury(worker_id, reason)

    def _record(self, worker_id: str, report: Report) -> None:
        finished = report.finished
        self._ledger.record(worker_id, finished.units, finished.committed, finished.saved)
        self._reports[worker_id] = report
        self._totals += finished.totals
        if finished.units:
            self._deaths_in_a_row = 0

    def _feed(self, worker_id: str, num_wanted: int, *, is_idle: bool) -> None:
        """Send `worker_id` back to work with what it wants, as far as there is any.

        Nobody takes more than its part of what is left, so that all share the tail.
        """
        assignments: list[Assignment] = []
        num_rows = 0
        most = -(-self._ledger.num_pending // self._num_workers)
        while num_rows < num_wanted and len(assignments) < most:
            lease = self._ledger.take(worker_id)
            if lease is None:
                break
            assignments.append(self._assignment(lease))
            num_rows += len(assignments[-1].items)
        if assignments or not is_idle:
            has_more = self._ledger.has_work_for(worker_id)
            self._fleet.send(worker_id, assignments, has_more=has_more)
        else:
            self._idle[worker_id] = num_wanted

    def _assignment(self, lease: Lease) -> Assignment:
        run, shard = self._run, lease.shard
        rows = {row.index: row for row in run.source.rows(*_bounds(run.plan.rows(shard)))}
        items = []
        for unit in run.plan.units(shard):
            index, sample_index = run.plan.row_and_sample(unit)
            error: RowError | None = rows[index].error or self._quarantine(unit)
            trace = run.plan.is_among(unit, run.config.run.trace_rows)
            items.append(Item(unit, sample_index, rows[index], error, trace))
        may_have_checkpoint = shard in self._may_have_checkpoint
        self._may_have_checkpoint.add(shard)
        return Assignment(
            shard=shard,
            attempt=lease.attempt,
            items=tuple(items),
            held_back=lease.held_back,
            may_have_checkpoint=may_have_checkpoint,
            is_committed=shard in run.committed_shards,
        )

    def _quarantine(self, unit: int) -> QuarantinedError | None:
        reason = self._ledger.quarantined.get(unit)
        if reason is None:
            return None
        attempts = self._run.config.run.max_attempts
        return QuarantinedError(
            f"it was in flight each of the {attempts} times (run.max_attempts) that its worker"
            f" died, at last of: {reason}"
        )

    def _bury(self, worker_id: str, reason: str) -> None:
        num_quarantined = len(self._ledger.quarantined)
        self._record_commits(worker_id)
        self._ledger.release(worker_id, reason)
        self._reports.pop(worker_id, None)
        self._idle.pop(worker_id, None)
        self._deaths_in_a_row += 1
        if len(self._ledger.quarantined) > num_quarantined:
            self._deaths_in_a_row = 0
        if self._deaths_in_a_row > self._run.config.run.max_attempts * self._num_workers:
            raise DyntsError(
                f"{self._deaths_in_a_row} workers in a row died without finishing a row, the last"
                f" one of: {reason}"
            )
        self._warn(f"worker {worker_id} died and is replaced, its rows are run again: {reason}")
        self._fleet.start()

    def _record_commits(self, worker_id: str) -> None:
        """Find the shards that a worker committed and did not live to report."""
        run, ledger = self._run, self._ledger
        on_disk = run.run_dir.finished_shards() - run.committed_shards
        committed = [shard for shard in ledger.held_by(worker_id) if shard in on_disk]
        units = [unit for shard in committed for unit in run.plan.units(shard)]
        ledger.record(worker_id, units, committed, [])

    def _close(self) -> None:
        self._fleet.close()
        deadline_s = time.monotonic() + _CLOSE_TIMEOUT_S
        while self._reports and time.monotonic() < deadline_s:
            for event in self._fleet.wait(_POLL_S):
                if isinstance(event, Reported):  # its last call before closing
                    self._record(event.worker_id, event.report)
                elif isinstance(event, Died):
                    self._ledger.release(event.worker_id, event.reason)
                    self._reports.pop(event.worker_id, None)
                else:
                    self._handle(event)
        self._show(self._state())

    def _state(self) -> State:
        reports = [report for report in self._reports.values() if report is not None]
        return State(
            num_rows=self._run.plan.num_units,
            num_done=self._ledger.num_done,
            num_workers=len(self._reports),
            num_running=sum(report.num_running for report in reports),
            totals=self._totals,
            elapsed_s=time.monotonic() - (self._started_s or time.monotonic()),
        )


def _bounds(rows: range) -> tuple[int, int]:
    return rows.start, rows.stop
