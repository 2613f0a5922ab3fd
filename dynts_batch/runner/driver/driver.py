"""The driver: hands out shards to whoever has room, and keeps the books when a worker dies.

Workers pull: each is given more as soon as it reports room, several shards at a time, and nobody
waits for anybody. There are as many as there is work for, within the bounds that are set. Knows
nothing about Ray (a Fleet does) nor about engines.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from dynts_batch.errors import ConfigError, DyntsError
from dynts_batch.runner.driver.assigner import Assigner
from dynts_batch.runner.driver.health import Health
from dynts_batch.runner.driver.ledger import Lease, Ledger
from dynts_batch.runner.driver.limits import NO_LIMITS, Limits, Used
from dynts_batch.runner.driver.notices import Notices
from dynts_batch.runner.driver.spending import Spending
from dynts_batch.runner.messages import (
    Assignment,
    Died,
    Event,
    Failed,
    Left,
    Loaded,
    Orders,
    Placed,
    Report,
    Reported,
    Tally,
)
from dynts_batch.runner.prepared_run import PreparedRun

REPORT_S = 1.0
_LEAST_REPORT_S = 0.02
_CLOSE_TIMEOUT_S = 60.0


class Fleet(Protocol):
    """Workers, each with one call under way at most."""

    def start(self, *, max_seqs: int | None = None) -> None:
        """Begin to load one more worker; `wait` tells when it is ready. See Worker for `max_seqs`."""

    def nodes(self) -> Mapping[str, str]:
        """The nodes that could hold a worker, full or not: their ids and their names."""

    def avoid(self, nodes: frozenset[str], *, may_wait: bool) -> None:
        """Place no worker on `nodes` any more, nor those that have no place yet; on all others again.

        Unless it `may_wait`, one for which no other node has room is placed there all the same.
        """

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
    """Where a run stands, to be shown. `tally` is of this start of the run only, and counts
    rows that were lost and run again each time."""

    num_rows: int
    num_done: int
    num_workers: int
    """Loaded ones."""
    num_running: int
    tally: Tally
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
        self._tally = Tally()
        self._spending = Spending(run.config)
        self._health = Health(
            max_attempts=max_attempts, num_workers=num_workers, has_worked=run.has_worked
        )
        self._nodes: Mapping[str, str] = {}
        """As of the latest death or later."""
        self._nodes_at_s = 0.0
        self._named_bad: frozenset[str] = frozenset()
        self._is_trial_named = False
        self._on_trial: str | None = None
        self.bad_nodes: dict[str, str] = {}
        """What was wrong with nodes that were avoided, by their ids."""
        self._started_s: float | None = None
        self._is_draining = False
        self._report_s, self._max_busy_s = _LEAST_REPORT_S, math.inf
        self.limit: str | None = None
        """The cap for whose sake nothing more is admitted, in words."""

    def run(self, is_stopped: Callable[[], bool]) -> bool:
        """Work until every unit has a row, a limit is reached or `is_stopped`; whether all have one.

        In any case all that is done is in the run directory when it ends.

        Raises:
            DyntsError: what a worker raised, or that workers die whatever they are given.
        """
        began_s = time.monotonic()
        try:
            while not (self._ledger.is_complete or is_stopped() or self._is_at_limit(began_s)):
                if self._health.num_deaths:
                    self._look_after_nodes()
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
            case Placed(worker_id):
                self._spending.hold(worker_id, None, time.monotonic())
            case Loaded(worker_id, info, node_id):
                self._num_loading -= 1
                now_s = time.monotonic()
                self._spending.hold(worker_id, info.device_uuid, now_s, info.num_devices)
                self._ledger.place(worker_id, node_id)
                self._health.add_worker(worker_id, node_id)
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
            case Died():
                self._bury(event)
            case Failed(worker_id, error, node_id):
                if self._reports and worker_id not in self._reports:
                    # Others are ready, so what is wrong is wrong on its machine.
                    self._bury(Died(worker_id, str(error), node_id=node_id))
                else:
                    self._remove(worker_id, str(error))
                    raise error

    def _record(self, worker_id: str, report: Report) -> None:
        self._notices.reported(worker_id, report)
        finished = report.finished
        self._ledger.record(worker_id, finished.units, finished.committed, finished.saved)
        self._reports[worker_id] = report
        self._tally += finished.tally
        if report.spent_usd is not None:
            self._spending.report(worker_id, report.spent_usd, time.monotonic())
        elif self._limits.max_cost_usd is not None:
            raise ConfigError(
                "run.max_cost_usd cannot be kept where the energy is not measured: set"
                " cost.usd_per_gpu_hour, and cost.usd_per_kwh to null"
            )
        if finished.units:
            is_good = finished.tally.rows > finished.tally.errors
            self._health.add_rows(self._ledger.node_of(worker_id), is_good=is_good)

    def _remove(self, worker_id: str, reason: str | None) -> None:
        """Take a worker out of the books; `reason`: see Ledger.release."""
        self._ledger.release(worker_id, reason, self._nodes.keys())
        self._spending.end(worker_id, time.monotonic())
        # One that never was ready has no report.
        self._num_loading -= worker_id not in self._reports
        self._reports.pop(worker_id, None)
        self._idle.pop(worker_id, None)

    def _bury(self, death: Died) -> None:
        worker_id, reason, node_id = death.worker_id, death.reason, death.node_id
        self._nodes = self._fleet.nodes()
        num_quarantined = len(self._ledger.quarantined)
        was_ready, report = worker_id in self._reports, self._reports.get(worker_id)
        self._record_commits(worker_id)
        is_trial = self._ledger.is_trying(worker_id) or not self._ledger.held_by(worker_id)
        is_expected = self._ledger.has_only_blamed(worker_id)
        self._remove(worker_id, reason)
        if worker_id in self._retired:
            return  # it had nothing left to do
        if death.is_out_of_memory and report is not None:
            self._max_seqs.append(max(1, report.max_seqs // 2))
        self._health.add_death(
            node_id, reason, was_ready=was_ready, is_trial=is_trial, now_s=time.monotonic()
        )
        if is_expected or len(self._ledger.quarantined) > num_quarantined:
            self._health.explain()
        where = f" on {self._nodes.get(node_id or '', 'a lost node')}" if node_id else ""
        self._warn(
            f"worker {worker_id}{where} died and is replaced, its rows are run again: {reason}"
        )

    def _record_commits(self, worker_id: str) -> None:
        """Find the shards that a worker committed and did not live to report."""
        held = self._ledger.held_by(worker_id)
        if not held:
            return
        run, ledger = self._run, self._ledger
        on_disk = run.run_dir.finished_shards() - run.committed_shards
        committed = on_disk & set(held)
        units = [unit for shard in committed for unit in run.plan.units(shard)]
        ledger.record(worker_id, units, committed, [])
        if committed:
            is_good = bool(committed - run.run_dir.list_shards("errors").keys())
            self._health.add_rows(ledger.node_of(worker_id), is_good=is_good)

    # ---- what to do ----------------------------------------------------------------------------

    def _look_after_nodes(self) -> None:
        """Avoid those on which workers die.

        Raises: DyntsError where the next worker would die as the last ones did.
        """
        now_s = time.monotonic()
        if now_s >= self._nodes_at_s + REPORT_S:
            self._nodes, self._nodes_at_s = self._fleet.nodes(), now_s
        nodes = self._nodes
        at_work = [worker_id for worker_id in self._reports if self._ledger.held_by(worker_id)]
        if verdict := self._health.verdict(nodes.keys(), at_work):
            raise DyntsError(verdict)
        if self._health.is_on_trial and not self._is_trial_named:
            self._is_trial_named = True
            self._warn(
                f"{self._health.num_deaths} workers died before any row was done: until one is, requests"
                " are tried one at a time, and rather on nodes where no worker has died"
            )
        is_anybody_ready = bool(self._reports.keys() - self._retired)
        may_wait = self._health.may_wait(is_anybody_ready=is_anybody_ready)
        avoided = self._health.avoided(nodes.keys(), now_s, may_wait=may_wait)
        bad = self._health.bad_nodes(nodes, avoided)
        for node in bad.keys() - self._named_bad:
            self._warn(f"no more workers are started there for a while: {bad[node]}")
        self.bad_nodes |= bad
        self._named_bad = frozenset(bad)
        self._fleet.avoid(avoided, may_wait=may_wait)

    def _scale(self) -> None:
        """Start workers while more work waits than there are; let idle ones go when none waits."""
        num_alive = len(self._reports) + self._num_loading
        if self._is_draining:
            return
        if num_pending := self._ledger.num_pending:
            num_busy = len(self._reports) - len(self._idle)
            num_wanted = max(self._min_workers, num_busy + num_pending)
            if self._health.is_on_trial:
                is_free = self._idle or self._num_loading
                num_wanted = num_alive + (self._may_try and not is_free)
            wanted = min(self._max_workers, num_wanted)
            for _ in range(wanted - num_alive):
                self._fleet.start(max_seqs=self._max_seqs.pop() if self._max_seqs else None)
                self._num_loading += 1
            return
        if self._num_loading:
            self._fleet.cancel_loading()
            self._spending.end_all_but(self._reports.keys(), time.monotonic())
            num_alive, self._num_loading = num_alive - self._num_loading, 0
        for worker_id in list(self._idle)[: max(0, num_alive - self._min_workers)]:
            del self._idle[worker_id]
            self._retired.add(worker_id)
            self._fleet.retire(worker_id)

    @property
    def _may_try(self) -> bool:
        """Whether the trial waits for a worker: none has its unit, and there is no verdict yet."""
        is_trying = self._on_trial is not None and self._ledger.held_by(self._on_trial)
        return not is_trying and not self._health.is_code(self._nodes.keys())

    def _take(self, worker_id: str) -> Lease | None:
        if not self._health.is_on_trial:
            return self._ledger.take(worker_id)
        if self._ledger.held_by(worker_id) or not self._may_try:
            return None
        self._on_trial = worker_id
        return self._ledger.take_one(worker_id) or self._ledger.take(worker_id)

    def _feed(self, worker_id: str, num_wanted: int, *, is_idle: bool) -> None:
        """Send `worker_id` back to work with what it wants, as far as there is any.

        Nobody takes more than its part of what is left, so that all share the tail.
        """
        assignments: list[Assignment] = []
        num_rows = 0
        most = 0 if self._is_draining else -(-self._ledger.num_pending // self._max_workers)
        while num_rows < num_wanted and len(assignments) < most:
            lease = self._take(worker_id)
            if lease is None:
                break
            assignments.append(self._assigner.assignment(lease, self._ledger.quarantined))
            num_rows += len(assignments[-1].items)
        if assignments or not is_idle:
            may_have_more = not (self._is_draining or self._health.is_on_trial)
            has_more = may_have_more and self._ledger.has_work_for(worker_id)
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
        tally = self._tally
        num_rows = max(1, tally.rows)
        rate = (tally.cost_usd or 0.0) / tally.device_s if tally.device_s else 0.0
        # Those that run together end together, or nearly so.
        more_s = max(in_flight, default=0) * tally.device_s / num_rows
        usd_per_row = (tally.cost_usd or 0.0) / num_rows
        return Used(
            cost_usd=self._spending.total(time.monotonic()),
            hours=hours,
            usd_per_s=rate * len(reports),
            more_cost_usd=sum(in_flight) * usd_per_row + len(self._idle) * rate * more_s,
            more_hours=more_s / 3600,
        )

    def _close(self) -> DyntsError | None:
        """End all workers; what kept one of them from storing what it had."""
        error: DyntsError | None = None
        self._fleet.close()
        self._spending.end_all_but(self._reports.keys(), time.monotonic())
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
            tally=self._tally,
            elapsed_s=time.monotonic() - (self._started_s or time.monotonic()),
            spent_usd=self._limits.spent_usd + self._spending.total(time.monotonic()),
        )
