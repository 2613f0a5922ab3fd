"""The law of a burial: each of its steps comes after those that it builds on."""

import pytest
from fake_run import make_config

from dynts_batch.runner.driver.departures import Books, Departures
from dynts_batch.runner.messages import Died, WorkerInfo
from dynts_batch.runner.prepared_run import prepare

_INFO = WorkerInfo("host", "cpu", None, num_devices=1, max_seqs=4, arena_bytes=1)


class _Start:
    """A start of a real run. A test says which nodes there are, who takes work, and who dies."""

    def __init__(self, folder, *, max_attempts: int) -> None:
        run = {"dir": str(folder / "run"), "shard_rows": 3, "max_attempts": max_attempts}
        config = make_config(folder, run=run)
        self.node_ids, self.told, self._rows = {"x"}, [], folder / "run" / "rows"
        prepared = prepare(config, is_local=True)
        self.books = Books.open(prepared, self, 8, self.told.append)
        self.health, self.ledger = self.books.health, self.books.ledger
        self.departures = Departures(prepared, self.books, self.told.append)

    def nodes(self) -> dict[str, str]:
        """See fleet.Fleet."""
        return {node: f"host-{node}" for node in self.node_ids}

    def add(self, worker_id: str, *, num_shards: int = 1) -> list[int]:
        """A worker on node x; the shards that it takes."""
        self.books.roster.add(worker_id)
        worker = self.books.roster[worker_id]
        worker.info, worker.node_id = _INFO, "x"
        return [self.ledger.take(worker_id).shard for _ in range(num_shards)]

    def commit(self, shard: int) -> None:
        """Its file is there, and no report speaks of it."""
        self._rows.mkdir(exist_ok=True)
        (self._rows / f"shard-{shard:05d}.parquet").touch()

    def die(self, worker_id: str) -> None:
        self.departures.bury(Died(worker_id, "boom", node_id="x"))


@pytest.fixture
def start(tmp_path):
    return lambda *, max_attempts=3: _Start(tmp_path, max_attempts=max_attempts)


def test_a_unit_is_convicted_by_the_nodes_there_are_at_the_death_and_not_before(start):
    start = start(max_attempts=1)
    start.node_ids = {"x", "y"}
    start.add("a")
    start.die("a")
    assert not start.ledger.quarantined  # it was not tried on y
    start.node_ids = {"x"}
    start.add("b")
    start.die("b")
    assert start.ledger.quarantined


def test_what_is_on_disk_is_not_blamed(start):
    start = start(max_attempts=1)
    done, in_flight = start.add("a", num_shards=2)
    start.commit(done)
    start.die("a")
    assert sorted(start.ledger.quarantined) == [*range(3 * in_flight, 3 * in_flight + 3)]
    assert start.ledger.num_done == 3


def test_what_is_on_disk_does_not_hide_that_the_rest_was_blamed_before(start):
    start = start()
    start.add("a")
    start.add("b", num_shards=7)
    start.die("a")
    assert start.health.num_unexplained == 1
    (blamed,) = start.add("c")
    start.ledger.release("b", None)
    done = start.ledger.take("c").shard
    start.commit(done)
    start.die("c")
    assert blamed != done
    assert start.health.num_unexplained == 0


def test_a_death_is_a_trial_by_what_was_held_and_not_by_the_empty_hands_after_it(start):
    start = start()
    names = "abcdefgh"
    for name in names:
        start.add(name)
    for name in names:
        start.die(name)
    assert start.health.is_on_trial
    assert not start.health.is_code({"x"}), "all were at ordinary work"
    for name in "ijkl":
        start.add(name, num_shards=0)
        start.die(name)
    assert start.health.is_code({"x"}), "nothing was held, so it is no request"


def test_rows_before_a_death_do_not_excuse_it(start):
    start = start()
    done, _ = start.add("a", num_shards=2)
    start.commit(done)
    start.die("a")
    assert start.health.num_deaths == start.health.num_unexplained == 1


def test_a_death_that_convicts_a_unit_is_excused(start):
    start = start(max_attempts=1)
    start.add("a")
    start.die("a")
    assert start.ledger.quarantined
    assert (start.health.num_deaths, start.health.num_unexplained) == (1, 0)


def test_the_death_of_a_worker_that_was_let_go_says_nothing(start):
    start = start()
    start.add("a", num_shards=0)
    start.books.roster["a"].is_retired = True
    start.die("a")
    assert not start.health.num_deaths
    assert not start.told
    assert not start.books.roster


def test_the_user_reads_where_a_worker_died_by_its_node(start):
    start = start()
    start.add("a")
    start.die("a")
    assert start.told == ["worker a on host-x died and is replaced, its rows are run again: boom"]
