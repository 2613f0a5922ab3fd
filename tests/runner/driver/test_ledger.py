"""Laws of the ledger: every unit is in one place, and only what kills is quarantined."""

import random
from collections import Counter
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynts_batch.runner.driver.ledger import Ledger
from dynts_batch.runner.driver.roster import WorkerRecord
from dynts_batch.runner.messages import WorkerInfo
from dynts_batch.runner.shard_plan import ShardPlan

PLAN = ShardPlan(num_rows=10, num_samples=1, shard_rows=3)


def _ledger(shards: Iterable[int], *, max_attempts: int, plan: ShardPlan = PLAN) -> Ledger:
    """Its workers load for ever: it asks for their nodes, and there are none."""
    workers = {name: WorkerRecord(name) for name in "ab"}
    return Ledger(plan, shards, max_attempts=max_attempts, workers=workers)


class Simulation:
    """Workers that hold shards, finish units in order, and die as soon as they hold a poison.

    The disk keeps what was stored; a row in a worker's memory dies with it.
    """

    def __init__(self, ledger: Ledger, plan: ShardPlan, poison: set[int], seed: int) -> None:
        self.ledger, self.plan, self.poison = ledger, plan, poison
        self.random = random.Random(seed)
        self.disk: Counter[int] = Counter()
        self.errors: set[int] = set()
        self.held: dict[str, list] = {"a": [], "b": []}
        self.memory: dict[int, set[int]] = {}
        self.checkpoints: dict[int, set[int]] = {}

    def step(self) -> None:
        worker = self.random.choice("ab")
        if self.ledger.has_work_for(worker) and self.random.random() < 0.7:
            lease = self.ledger.take(worker)
            self.held[worker].append(lease)
            self.memory[lease.shard] = set(self.checkpoints.get(lease.shard, ()))
            if self.random.random() < 0.5:
                self._die_if_poisoned(worker)
        elif self.held[worker] and not self._die_if_poisoned(worker):
            self._finish_one(worker)

    def _units_to_run(self, lease) -> list[int]:
        done = self.memory[lease.shard] | lease.held_back
        return [unit for unit in self.plan.units(lease.shard) if unit not in done]

    def _die_if_poisoned(self, worker: str) -> bool:
        running = {u for lease in self.held[worker] for u in self._units_to_run(lease)}
        if not (running & self.poison) - self.ledger.quarantined.keys():
            return False
        self.kill(worker)
        return True

    def kill(self, worker: str) -> None:
        self.ledger.release(worker, "boom")
        self.held[worker].clear()

    def _finish_one(self, worker: str) -> None:
        lease = self.random.choice(self.held[worker])
        to_run = self._units_to_run(lease)
        if to_run:
            self.memory[lease.shard].add(to_run[0])
        finished = list(self.memory[lease.shard])
        if len(to_run) > 1:
            self.ledger.record(worker, finished, [], [])
            return
        self.held[worker].remove(lease)
        if len(finished) == len(self.plan.units(lease.shard)):
            self.ledger.record(worker, finished, [lease.shard], [])
            self.disk.update(finished)
        else:
            self.checkpoints[lease.shard] = set(finished)
            self.ledger.record(worker, finished, [], [lease.shard])


@settings(max_examples=150)
@given(
    plan=st.builds(ShardPlan, st.integers(1, 12), st.integers(1, 3), st.integers(1, 6)),
    poison=st.sets(st.integers(0, 35), max_size=4),
    max_attempts=st.integers(2, 4),
    seed=st.integers(0, 2**16),
)
def test_every_unit_is_committed_once_and_exactly_the_poison_is_quarantined(
    plan, poison, max_attempts, seed
):
    poison = {unit for unit in poison if unit < plan.num_units}
    ledger = _ledger(range(plan.num_shards), max_attempts=max_attempts, plan=plan)
    simulation = Simulation(ledger, plan, poison, seed)
    for _ in range(20_000):
        if ledger.is_complete:
            break
        simulation.step()
        assert 0 <= ledger.num_done <= plan.num_units
    assert ledger.is_complete
    assert ledger.num_done == plan.num_units
    assert simulation.disk == Counter(range(plan.num_units))
    assert set(ledger.quarantined) == poison


@given(kills=st.lists(st.sampled_from("ab"), max_size=2), seed=st.integers(0, 2**16))
def test_accidental_deaths_below_max_attempts_quarantine_nobody(kills, seed):
    ledger = _ledger(range(PLAN.num_shards), max_attempts=3)
    simulation = Simulation(ledger, PLAN, set(), seed)
    while not ledger.is_complete:
        for _ in range(5):
            simulation.step()
        if kills:
            simulation.kill(kills.pop())
    assert simulation.disk == Counter(range(PLAN.num_units))
    assert not ledger.quarantined


def test_shards_are_leased_in_order_and_to_one_worker_each():
    ledger = _ledger(range(PLAN.num_shards), max_attempts=3)
    leases = [ledger.take(worker) for worker in "abab"]
    assert [(lease.shard, lease.worker_id) for lease in leases] == [
        (0, "a"), (1, "b"), (2, "a"), (3, "b")
    ]  # fmt: skip
    assert ledger.take("a") is None
    assert not ledger.has_work_for("b")


def test_a_dead_workers_shards_go_to_the_end_and_count_an_attempt():
    ledger = _ledger([0, 1, 2], max_attempts=3)
    assert ledger.take("a").attempt == 1
    ledger.release("a", "boom")
    taken = [ledger.take("b") for _ in range(3)]
    assert [(lease.shard, lease.attempt) for lease in taken] == [(1, 1), (2, 1), (0, 2)]


def test_a_worker_that_leaves_keeps_its_rows_and_blames_nobody():
    ledger = _ledger([0], max_attempts=1)
    ledger.take("a")
    ledger.record("a", [0, 1], [], [])
    ledger.release("a", None)
    assert ledger.num_done == 7 + 2
    assert not ledger.quarantined
    assert ledger.take("b").attempt == 1


def test_with_one_attempt_all_that_was_in_flight_is_quarantined():
    ledger = _ledger([0, 1], max_attempts=1)
    ledger.take("a")
    ledger.record("a", [1], [], [])
    ledger.release("a", "boom")
    assert dict(ledger.quarantined) == {0: "boom", 2: "boom"}


def test_suspects_wait_for_the_rest_and_run_alone():
    ledger = _ledger([0, 1], max_attempts=2)
    ledger.take("a")
    ledger.release("a", "boom")
    assert ledger.take("a").shard == 1  # the work that killed nobody comes first
    assert not ledger.has_work_for("a")  # and a suspect does not join it
    lease = ledger.take("b")
    assert (lease.shard, lease.is_alone, lease.held_back) == (0, True, frozenset({1, 2}))
    assert not ledger.has_work_for("b")


def test_once_the_killer_is_found_the_other_suspects_are_cleared():
    ledger = _ledger([0], max_attempts=2)
    ledger.take("a")
    ledger.release("a", "boom")
    assert ledger.take("a").is_alone
    ledger.release("a", "bang")
    assert dict(ledger.quarantined) == {0: "bang"}
    lease = ledger.take("a")
    assert (lease.is_alone, lease.held_back) == (False, frozenset())


class _OnNodes:
    """A ledger of `shards` and the workers that it is told of."""

    def __init__(self, shards: list[int], *, max_attempts: int) -> None:
        self.workers: dict[str, WorkerRecord] = {}
        self.ledger = Ledger(PLAN, shards, max_attempts=max_attempts, workers=self.workers)

    def add(self, name: str, node: str) -> None:
        info = WorkerInfo("host", "cpu", None, num_devices=1, max_seqs=4, arena_bytes=1)
        self.workers[name] = WorkerRecord(name, info, node)

    def kill_one_on(self, node: str) -> set[int]:
        """A worker takes what it gets on `node`, one of x and y, and dies;
        the units that were in flight."""
        self.add("a", node)
        lease = self.ledger.take("a")
        self.ledger.release("a", "boom", {"x", "y"})
        del self.workers["a"]
        return set(PLAN.units(lease.shard)) - lease.held_back


def test_a_unit_is_quarantined_once_it_died_alone_on_two_nodes():
    start = _OnNodes([3], max_attempts=2)
    for node in ("x", "x", "x"):
        assert start.kill_one_on(node) == {9}
        assert not start.ledger.quarantined
    start.kill_one_on("y")
    assert dict(start.ledger.quarantined) == {9: "boom"}


def test_what_died_beside_others_on_two_nodes_is_not_quarantined():
    start = _OnNodes([0], max_attempts=3)
    for node in ("x", "y"):
        assert start.kill_one_on(node) == {0, 1, 2}
    assert start.kill_one_on("x") == {0}
    assert not start.ledger.quarantined


def test_a_unit_is_quarantined_where_no_worker_came_to_be_on_another_node():
    start = _OnNodes([3], max_attempts=2)
    for _ in range(6):  # not alone at first
        assert not start.ledger.quarantined
        start.kill_one_on("x")
    assert dict(start.ledger.quarantined) == {9: "boom"}


def test_a_suspect_is_kept_for_a_worker_on_another_node_as_long_as_there_is_one():
    start = _OnNodes([3], max_attempts=2)
    for _ in range(2):
        start.kill_one_on("x")
    start.add("b", "x")
    start.add("c", "y")
    assert not start.ledger.has_work_for("b")
    assert start.ledger.has_work_for("c")
    start.ledger.release("c", None)
    del start.workers["c"]
    assert start.ledger.take("b").is_alone


def test_single_units_are_others_each_time_and_those_first_that_nobody_blamed():
    ledger = _ledger(range(4), max_attempts=3)
    ledger.take("a")
    ledger.release("a", "boom")  # shard 0
    tried = []
    for _ in range(10):
        lease = ledger.take_one("a")
        (unit,) = set(PLAN.units(lease.shard)) - lease.held_back
        tried.append(unit)
        ledger.release("a", "boom")
    assert ledger.take_one("a") is None
    assert sorted(tried) == list(range(10))
    assert set(tried[-3:]) == {0, 1, 2}


def test_a_report_about_a_shard_of_another_worker_is_our_bug():
    ledger = _ledger([0], max_attempts=2)
    ledger.take("a")
    with pytest.raises(AssertionError):
        ledger.record("b", [0], [], [])
