"""The driver: hands out shards to whoever has room, and keeps the books when a worker dies.

Workers pull: each is given more as soon as it reports room, several shards at a time, and nobody
waits for anybody. There are as many as there is work for, within the bounds that are set. Knows
nothing about Ray (a Fleet does) nor about engines.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from dynts_batch.errors import ConfigError, DyntsError
from dynts_batch.runner.driver.assigner import Assigner
from dynts_batch.runner.driver.departures import Books, Departures
from dynts_batch.runner.driver.fleet import Fleet
from dynts_batch.runner.driver.limits import NO_LIMITS, REPORT_S, Brake, Limits, Used
from dynts_batch.runner.driver.notices import Notices
from dynts_batch.runner.driver.roster import WorkerRecord
from dynts_batch.runner.driver.state import State
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

_CLOSE_TIMEOUT_S = 60.0


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
        """`num_workers` is the most there may be at once;
        workers.min is the least while there is work."""
        self._run, self._fleet, self._limits = run, fleet, limits
        self._min_workers = min(run.config.workers.min, num_workers)
        self._max_workers = num_workers
        self._show, self._warn = show, warn
        books = Books.open(run, fleet, num_workers, warn)
        self._roster, self._ledger, self._spending = books.roster, books.ledger, books.spending
        self._health, self._trial, self._nodes = books.health, books.trial, books.nodes
        self._departures = Departures(run, books, warn)
        self._assigner, self._notices = Assigner(run), Notices(warn)
        self._tally = Tally()
        self._started_s: float | None = None
        self._brake = Brake(limits)

    @property
    def bad_nodes(self) -> dict[str, str]:
        """What was wrong with nodes that were avoided, by their ids."""
        return self._nodes.bad

    @property
    def warnings(self) -> list[str]:
        """What workers warned of, one text of each kind."""
        return list(self._notices.told.values())

    @property
    def limit(self) -> str | None:
        """The cap for whose sake nothing more is admitted, in words."""
        return self._brake.limit

    def run(self, is_stopped: Callable[[], bool]) -> bool:
        """Work until every unit has a row, a limit is reached or `is_stopped`;
        whether all have one.

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
                for worker in self._roster.idle:
                    self._feed(worker)
                self._show(self._state())
        except DyntsError:
            self._close()  # what is wrong is known: let the others store what they have
            raise
        if error := self._close():
            raise error
        return self._ledger.is_complete

    # ---- what happened -------------------------------------------------------------------------

    def _handle(self, event: Event) -> None:
        worker = self._roster[event.worker_id]
        match event:
            case Placed():
                self._spending.hold(worker, time.monotonic())
            case Loaded():
                self._welcome(worker, event)
            case Reported(_, report):
                self._record(worker, report)
                self._feed(worker)
            case Left(worker_id, report):
                self._record(worker, report)
                self._departures.close(worker_id, None)
                if not worker.is_retired:
                    self._warn(
                        f"worker {worker_id} stored its rows and left: its machine goes away"
                    )
            case Died():
                self._departures.bury(event)
            case Failed(worker_id, error, node_id):
                if self._roster.ready and not worker.is_ready:
                    # Others are ready, so what is wrong is wrong on its machine.
                    self._departures.bury(Died(worker_id, str(error), node_id=node_id))
                else:
                    self._departures.close(worker_id, str(error))
                    raise error

    def _welcome(self, worker: WorkerRecord, loaded: Loaded) -> None:
        now_s = time.monotonic()
        worker.info, worker.node_id = loaded.info, loaded.node_id
        worker.num_deaths_before, worker.idle_since_s = self._health.num_deaths, now_s
        self._spending.hold(worker, now_s)
        self._health.add_worker(loaded.node_id)
        self._started_s = self._started_s or now_s

    def _record(self, worker: WorkerRecord, report: Report) -> None:
        self._notices.reported(worker, report)
        finished = report.finished
        self._ledger.record(worker.worker_id, finished.units, finished.committed, finished.saved)
        worker.report = report
        self._tally += finished.tally
        if report.spent_usd is not None:
            self._spending.report(worker, report.spent_usd, time.monotonic())
        elif self._limits.max_cost_usd is not None:
            raise ConfigError(
                "run.max_cost_usd cannot be kept where the energy is not measured: set"
                " cost.usd_per_gpu_hour, and cost.usd_per_kwh to null"
            )
        if finished.units:
            assert worker.node_id is not None, "it is ready"
            is_good = finished.tally.answers > 0
            self._health.add_rows(worker.node_id, is_good=is_good)

    # ---- what to do ----------------------------------------------------------------------------

    def _look_after_nodes(self) -> None:
        """Avoid those on which workers die.

        Raises: DyntsError where the next worker would die as the last ones did.
        """
        now_s = time.monotonic()
        self._nodes.refresh(now_s)
        ready = self._roster.ready
        at_work = [w.num_deaths_before for w in ready if self._ledger.held_by(w.worker_id)]
        if verdict := self._health.verdict(self._nodes.ids, at_work):
            raise DyntsError(verdict)
        self._trial.tell_once()
        is_anybody_ready = not all(worker.is_retired for worker in ready)
        self._nodes.avoid_bad_ones(now_s, is_anybody_ready=is_anybody_ready)

    def _scale(self) -> None:
        """Start workers while more work waits than there are; let idle ones go when none waits."""
        if self._brake.is_draining:
            return
        if num_pending := self._ledger.num_pending:
            self._start_workers(self._num_wanted(num_pending) - len(self._roster))
        else:
            self._let_go()

    def _num_wanted(self, num_pending: int) -> int:
        """How many workers there should be while `num_pending` shards wait."""
        roster = self._roster
        if self._trial.is_on:
            is_anybody_free = roster.idle or roster.loading
            num_wanted = len(roster) + (self._trial.waits(self._nodes.ids) and not is_anybody_free)
        else:
            num_busy = len(roster.ready) - len(roster.idle)
            num_wanted = max(self._min_workers, num_busy + num_pending)
        return min(self._max_workers, num_wanted)

    def _start_workers(self, num: int) -> None:
        smaller = self._departures.smaller_arenas
        for _ in range(num):
            self._roster.add(self._fleet.start(max_seqs=smaller.pop() if smaller else None))

    def _let_go(self) -> None:
        """No work waits: forget those that load, and end idle ones down to workers.min."""
        roster = self._roster
        num_spare = len(roster) - self._min_workers
        if roster.loading:
            self._fleet.cancel_loading()
            self._forget_loading()
        for worker in roster.idle[: max(0, num_spare)]:
            worker.idle_since_s, worker.is_retired = None, True
            self._fleet.retire(worker.worker_id)

    def _forget_loading(self) -> None:
        for worker in self._roster.loading:
            self._departures.close(worker.worker_id, None)

    def _feed(self, worker: WorkerRecord) -> None:
        """Send `worker` back to work with what it wants, as far as there is any.

        Nobody takes more than its part of what is left, so that all share the tail.
        """
        assignments: list[Assignment] = []
        num_rows = 0
        most = 0 if self._brake.is_draining else -(-self._ledger.num_pending // self._max_workers)
        while num_rows < worker.num_wanted and len(assignments) < most:
            assignment = self._next_assignment(worker.worker_id)
            if assignment is None:
                break
            assignments.append(assignment)
            num_rows += len(assignment.items)
        if assignments or not worker.has_nothing_left:
            worker.idle_since_s = None
            self._fleet.send(worker.worker_id, assignments, self._orders(worker.worker_id))
        elif worker.idle_since_s is None:
            worker.idle_since_s = time.monotonic()

    def _next_assignment(self, worker_id: str) -> Assignment | None:
        if self._trial.is_on:
            lease = self._trial.take(worker_id, self._nodes.ids)
        else:
            lease = self._ledger.take(worker_id)
        if lease is None:
            return None
        return self._assigner.assignment(lease, self._ledger.quarantined)

    def _orders(self, worker_id: str) -> Orders:
        may_have_more = not (self._brake.is_draining or self._trial.is_on)
        has_more = may_have_more and self._ledger.has_work_for(worker_id)
        return Orders(
            has_more, self._brake.is_draining, self._brake.report_s, self._brake.max_busy_s
        )

    # ---- when to end ---------------------------------------------------------------------------

    def _is_at_limit(self, began_s: float) -> bool:
        """Whether a cap ends the run now; from shortly before that on, nothing more is admitted."""
        now_s = time.monotonic()
        spent_usd, hours = self._spending.total(now_s), (now_s - began_s) / 3600
        used = Used.of(self._roster, self._tally, cost_usd=spent_usd, hours=hours)
        self._brake.press(used)
        is_drained = self._brake.is_draining and all(w.is_idle for w in self._roster.ready)
        return is_drained or self._limits.reached(used) is not None

    def _close(self) -> DyntsError | None:
        """End all workers; what kept one of them from storing what it had."""
        error: DyntsError | None = None
        self._fleet.close()
        self._forget_loading()
        deadline_s = time.monotonic() + _CLOSE_TIMEOUT_S
        while self._roster and time.monotonic() < deadline_s:
            for event in self._fleet.wait(REPORT_S):
                match event:
                    case Reported(worker_id, report):  # its last call before closing
                        self._record(self._roster[worker_id], report)
                    case Left(worker_id, report):
                        self._record(self._roster[worker_id], report)
                        self._departures.close(worker_id, None)
                    case Died(worker_id, reason):
                        self._departures.close(worker_id, reason)
                    case Failed(worker_id, error):
                        self._departures.close(worker_id, str(error))
        self._show(self._state())
        return error

    def _state(self) -> State:
        return State(
            num_rows=self._run.plan.num_units - self._run.num_unasked,
            num_done=self._ledger.num_done - self._run.num_unasked,
            num_workers=len(self._roster.ready),
            num_running=sum(report.num_running for report in self._roster.reports),
            num_steps=int(sum(r.gauges.get("num_steps") or 0 for r in self._roster.reports)),
            tally=self._tally,
            elapsed_s=time.monotonic() - (self._started_s or time.monotonic()),
            spent_usd=self._limits.spent_usd + self._spending.total(time.monotonic()),
        )
