"""How workers leave the books, because they were asked to, or failed, or died.

A death is buried in steps, and their order is a law:

    look      Which nodes are there now? Only those decide whether a unit is convicted.
    credit    What it committed and did not live to report is done, so that it is not blamed.
    judge     What it still held says what its death is a sign of. `close` takes that away.
    close     Its shards wait again and its units are blamed, which may convict one. Its record
              ends.
    count     Its death counts against the code and its node. The rows of `credit` came before it.
    explain   A death that its units explain is no sign against the code. `close` has convicted
              them by now, and the death to excuse is the one that was counted last.
    tell      The user reads of it.

A worker that was retired had nothing left to do, so its burial ends with `close`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from dynts_batch.runner.driver.fleet import Fleet
from dynts_batch.runner.driver.health import Health
from dynts_batch.runner.driver.ledger import Ledger
from dynts_batch.runner.driver.nodes import Nodes
from dynts_batch.runner.driver.roster import Roster, WorkerRecord
from dynts_batch.runner.driver.spending import Spending
from dynts_batch.runner.driver.trial import Trial
from dynts_batch.runner.messages import Died
from dynts_batch.runner.prepared_run import PreparedRun


@dataclass(frozen=True, slots=True)
class Books:
    """What the driver knows of a start: of workers, shards, dollars, deaths and nodes."""

    roster: Roster
    ledger: Ledger
    spending: Spending
    health: Health
    trial: Trial
    nodes: Nodes

    @classmethod
    def open(
        cls, run: PreparedRun, fleet: Fleet, num_workers: int, warn: Callable[[str], None]
    ) -> Books:
        """As they are before the first worker; `num_workers` bounds how many there are at once."""
        roster, most = Roster(), run.config.run.max_attempts
        ledger = Ledger(run.plan, run.shards_to_do, max_attempts=most, workers=roster)
        health = Health(max_attempts=most, num_workers=num_workers, has_worked=run.has_worked)
        trial, nodes = Trial(ledger, health, warn), Nodes(fleet, health, warn)
        return cls(roster, ledger, Spending(run.config, roster), health, trial, nodes)


@dataclass(frozen=True, slots=True)
class _Judgement:
    """What a death is a sign of."""

    is_trial: bool
    """Of broken code: it had a unit that was not tried before, or none."""
    is_expected: bool
    """Of its units alone: all of them were at a death before."""


class Departures:
    """Of one start of a run."""

    def __init__(self, run: PreparedRun, books: Books, warn: Callable[[str], None]) -> None:
        self._run, self._books, self._warn = run, books, warn
        self.smaller_arenas: list[int] = []
        """Bounds for the next workers' arenas: half of what ran out of memory."""

    def close(self, worker_id: str, reason: str | None) -> None:
        """Take a worker out of the books; `reason`: see Ledger.release."""
        books, worker = self._books, self._books.roster[worker_id]
        books.ledger.release(worker_id, reason, books.nodes.ids)
        books.spending.end(worker, time.monotonic())
        books.roster.remove(worker_id)

    def bury(self, death: Died) -> None:
        """All that follows from a death, in the order above."""
        worker = self._books.roster[death.worker_id]
        num_convicted = len(self._books.ledger.quarantined)
        self._books.nodes.look(time.monotonic())
        self._credit(worker)
        judgement = self._judge(worker)
        self.close(worker.worker_id, death.reason)
        if worker.is_retired:
            return
        self._count(worker, death, judgement)
        if judgement.is_expected or len(self._books.ledger.quarantined) > num_convicted:
            self._books.health.explain()
        self._tell(death)

    def _credit(self, worker: WorkerRecord) -> None:
        """Record the shards that it committed and did not live to report."""
        run, books = self._run, self._books
        held = books.ledger.held_by(worker.worker_id)
        if not held:
            return
        committed = (run.run_dir.finished_shards() - run.committed_shards) & set(held)
        units = [unit for shard in committed for unit in run.plan.units(shard)]
        books.ledger.record(worker.worker_id, units, committed, [])
        if committed and worker.node_id is not None:
            is_good = bool(committed - run.run_dir.list_shards("errors").keys())
            books.health.add_rows(worker.node_id, is_good=is_good)

    def _judge(self, worker: WorkerRecord) -> _Judgement:
        return _Judgement(
            is_trial=self._books.trial.is_of(worker.worker_id),
            is_expected=self._books.ledger.has_only_blamed(worker.worker_id),
        )

    def _count(self, worker: WorkerRecord, death: Died, judgement: _Judgement) -> None:
        if death.is_out_of_memory and worker.report is not None:
            self.smaller_arenas.append(max(1, worker.max_seqs // 2))
        self._books.health.add_death(
            death.node_id,
            death.reason,
            was_ready=worker.is_ready,
            is_trial=judgement.is_trial,
            now_s=time.monotonic(),
        )

    def _tell(self, death: Died) -> None:
        where = f" on {self._books.nodes.name_of(death.node_id)}" if death.node_id else ""
        self._warn(
            f"worker {death.worker_id}{where} died and is replaced, its rows are run again:"
            f" {death.reason}"
        )
