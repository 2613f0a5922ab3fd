"""A cluster without Ray, engines or files: nodes, the workers on them, what kills these,
and what reaches the disk.

What happens next is drawn, so thousands of runs go through the real driver in seconds.
"""

import random
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import pyarrow as pa

from dynts_batch.config import Config
from dynts_batch.errors import DyntsError
from dynts_batch.grading.stopping import Sample, Stopping
from dynts_batch.runner.driver.driver import Driver
from dynts_batch.runner.messages import (
    Assignment,
    Died,
    Finished,
    Item,
    Left,
    Loaded,
    Report,
    Reported,
    Tally,
    WorkerInfo,
)
from dynts_batch.runner.shard_plan import ShardPlan
from dynts_batch.runner.worker.turns import Due, Turns

_STUCK = 3000


@dataclass
class World:
    """What there is, and what is wrong with it."""

    plan: ShardPlan
    num_nodes: int = 1
    slots: int = 4
    """Workers that a node holds."""
    max_workers: int = 1
    max_attempts: int = 3
    max_seqs: int = 4
    poison: frozenset[int] = frozenset()
    bad_nodes: frozenset[str] = frozenset()
    full_nodes: frozenset[str] = frozenset()
    """Others fill them for as long as the run takes."""
    is_broken: bool = False
    dies_at_load: bool = False
    """Where it dies, on a bad node or of broken code, it dies before it is ready."""
    has_worked: bool = False
    right: frozenset[int] = frozenset()
    """Units after which, if plan.in_turn, no more samples of their row are run."""
    seed: int = 0


@dataclass
class Outcome:
    error: DyntsError | None
    rows: Counter = field(default_factory=Counter)
    failed: set[int] = field(default_factory=set)
    skipped: set[int] = field(default_factory=set)
    num_started: int = 0
    places: dict[int, list[str]] = field(default_factory=lambda: defaultdict(list))
    """The nodes of the deaths at which each unit was in flight."""
    named: dict[str, str] = field(default_factory=dict)


@dataclass
class _Worker:
    node: str
    held: dict[int, set[int]] = field(default_factory=dict)
    """What is still to be run of each shard."""
    done: dict[int, set[int]] = field(default_factory=dict)
    turns: dict[int, Turns] = field(default_factory=dict)
    items: dict[int, Item] = field(default_factory=dict)
    opened: list[Assignment] = field(default_factory=list)
    has_call: bool = False
    is_last: bool = False


class SimulatedFleet:
    """See fleet.Fleet."""

    def __init__(self, world: World) -> None:
        self._world, self._dice = world, random.Random(world.seed)
        self.outcome = Outcome(None)
        self._loading: list[str] = []
        self._workers: dict[str, _Worker] = {}
        self._avoided: frozenset[str] = frozenset()
        self._may_wait = True
        plan = world.plan
        self._stopping = (
            Stopping("right", "posterior", 0.95, 1, plan.num_samples) if plan.in_turn else None
        )
        self._disk: dict[int, set[int]] = defaultdict(set)
        self._errors: set[int] = set()
        self.committed: set[int] = set()
        self._num_quiet = 0

    def list_shards(self, folder: str) -> dict[int, None]:
        assert folder == "errors"
        shards = {unit // self._world.plan.shard_rows for unit in self._errors}
        return dict.fromkeys(shards & self.committed)

    def start(self, *, max_seqs: int | None = None) -> str:
        worker_id = str(self.outcome.num_started)
        self._loading.append(worker_id)
        self.outcome.num_started += 1
        return worker_id

    def nodes(self) -> dict[str, str]:
        return {f"n{i}": f"host{i}" for i in range(self._world.num_nodes)}

    def avoid(self, nodes: frozenset[str], *, may_wait: bool) -> None:
        assert may_wait or nodes < self.nodes().keys()
        self._avoided, self._may_wait = nodes, may_wait

    def send(self, worker_id, assignments, orders) -> None:
        worker = self._workers[worker_id]
        assert not worker.has_call
        worker.has_call = True
        worker.opened += assignments

    def retire(self, worker_id: str) -> None:
        self._workers[worker_id].has_call = self._workers[worker_id].is_last = True

    def cancel_loading(self) -> None:
        self._loading.clear()

    def close(self) -> None:
        self.cancel_loading()
        for worker_id in self._workers:
            self.retire(worker_id)

    def wait(self, timeout_s: float) -> list:
        """One of the things that may happen now happens."""
        free = self._free()
        may = [w for w, worker in self._workers.items() if worker.has_call]
        if self._loading and free:
            may.append("load")
        self._num_quiet = 0 if may else self._num_quiet + 1
        assert self._num_quiet < _STUCK, "nothing happens any more"
        if not may:
            return []
        what = self._dice.choice(may)
        if what == "load":
            return [self._load(self._loading.pop(0), self._dice.choice(free))]
        return [self._work(what)]

    def _free(self) -> list[str]:
        """Nodes that may get the next worker."""
        taken = Counter(worker.node for worker in self._workers.values())
        have_room = self.nodes().keys() - self._world.full_nodes
        have_room = sorted(node for node in have_room if taken[node] < self._world.slots)
        elsewhere = [node for node in have_room if node not in self._avoided]
        return elsewhere if elsewhere or self._may_wait else have_room

    def _load(self, worker_id: str, node: str):
        if self._world.dies_at_load and (self._world.is_broken or node in self._world.bad_nodes):
            return Died(worker_id, "it cannot load", node_id=node)
        self._workers[worker_id] = _Worker(node)
        return Loaded(worker_id, WorkerInfo("host", "cpu", None, 1, self._world.max_seqs, 1), node)

    def _work(self, worker_id: str):
        worker, finished = self._workers[worker_id], Finished()
        worker.has_call = False
        for assignment in worker.opened:
            self._open(worker, assignment, finished)
        worker.opened.clear()
        in_flight = {unit for units in worker.held.values() for unit in units}
        is_bad = self._world.is_broken or worker.node in self._world.bad_nodes
        if in_flight and (is_bad or in_flight & self._world.poison):
            if is_bad or self._dice.random() < 0.8:
                for unit in in_flight:
                    self.outcome.places[unit].append(worker.node)
                del self._workers[worker_id]
                return Died(worker_id, "it was killed", node_id=worker.node)
            in_flight -= self._world.poison
        units = sorted(in_flight)
        for unit in self._dice.sample(units, self._dice.randint(0, len(units))):
            self._finish(worker, unit, finished)
        for shard in [shard for shard, held in worker.held.items() if not held]:
            self._end(worker, shard, finished)
        if worker.is_last:
            for shard, done in worker.done.items():
                self._disk[shard] |= done
            del self._workers[worker_id]
            return Left(worker_id, self._report(worker, finished))
        return Reported(worker_id, self._report(worker, finished))

    def _open(self, worker: _Worker, assignment: Assignment, finished: Finished) -> None:
        shard = assignment.shard
        stored = self._disk[shard]
        turns = Turns(self._stopping, assignment.items, assignment.held_back)
        worker.turns[shard], worker.held[shard] = turns, set()
        worker.items |= {item.unit: item for item in assignment.items}
        worker.done[shard] = set(stored)
        for unit in stored:
            turns.record(worker.items[unit], self._sample(unit))
        finished.units += stored
        self._begin(worker, shard, turns.due(), finished)
        if not worker.held[shard]:
            self._end(worker, shard, finished)

    def _begin(self, worker: _Worker, shard: int, due: Due, finished: Finished) -> None:
        worker.held[shard] |= {item.unit for item in due.to_run}
        for item in due.to_skip:
            worker.done[shard].add(item.unit)
            finished.units.append(item.unit)
            finished.tally += Tally(rows=1, skipped=1)
            self.outcome.skipped.add(item.unit)
        for item in due.to_run:
            if item.error is not None:
                self._errors.add(item.unit)
                self._finish(worker, item.unit, finished, is_error=True)

    def _sample(self, unit: int) -> Sample | None:
        return None if unit in self._errors else Sample(None, unit in self._world.right)

    def _finish(self, worker: _Worker, unit: int, finished: Finished, is_error=False) -> None:
        shard = unit // self._world.plan.shard_rows
        worker.held[shard].remove(unit)
        worker.done[shard].add(unit)
        finished.units.append(unit)
        finished.tally += Tally(rows=1, errors=int(is_error))
        worker.turns[shard].record(worker.items[unit], self._sample(unit))
        due = worker.turns[shard].due(worker.items[unit].row.index)
        self._begin(worker, shard, due, finished)

    def _end(self, worker: _Worker, shard: int, finished: Finished) -> None:
        del worker.held[shard]
        self._disk[shard] |= worker.done.pop(shard)
        if len(self._disk[shard]) < len(self._world.plan.units(shard)):
            finished.saved.append(shard)
        else:
            finished.committed.append(shard)
            self.committed.add(shard)
            self.outcome.rows.update(self._disk[shard])
            self.outcome.failed |= self._disk[shard] & self._errors

    def _report(self, worker: _Worker, finished: Finished) -> Report:
        num_held = sum(map(len, worker.held.values()))
        room = max(0, 2 * self._world.max_seqs - num_held)
        return Report(
            finished=finished,
            num_wanted=room,
            is_idle=not num_held,
            num_in_engine=num_held,
            num_running=num_held,
            max_seqs=self._world.max_seqs,
            spent_usd=None,
            has_left=worker.is_last,
        )


def simulate(world: World) -> Outcome:
    """One start of a run in `world`."""
    config = Config()
    config = replace(config, run=replace(config.run, max_attempts=world.max_attempts))
    rows = SimpleNamespace(
        read=lambda start, stop: SimpleNamespace(
            rows=[SimpleNamespace(index=i, error=None) for i in range(start, stop)],
            columns=pa.table({}),
        )
    )
    fleet = SimulatedFleet(world)
    run = SimpleNamespace(
        config=config,
        plan=world.plan,
        source=rows,
        run_dir=SimpleNamespace(
            finished_shards=lambda: set(fleet.committed), list_shards=fleet.list_shards
        ),
        shards_to_do=range(world.plan.num_shards),
        committed_shards=frozenset(),
        num_unasked=0,
        checkpointed_shards=frozenset(),
        has_worked=world.has_worked,
    )
    driver = Driver(
        run, fleet, num_workers=world.max_workers, show=lambda state: None, warn=lambda text: None
    )
    try:
        assert driver.run(lambda: False)
    except DyntsError as error:
        fleet.outcome.error = error
    fleet.outcome.named = driver.bad_nodes
    return fleet.outcome
