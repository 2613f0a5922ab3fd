"""Laws of a worker: the engine stays fed, one bad request costs one row, and nothing waits."""

import os
import time
from types import SimpleNamespace

import pytest
import ray
import torch
from fake_run import make_config, stable_rows

from dynts_batch.data.source_columns import pack
from dynts_batch.engine.factory import load_engine
from dynts_batch.grading import Grade, Grader
from dynts_batch.report.device_time import measure_device_time
from dynts_batch.runner.messages import Assignment, Item, Job, Orders
from dynts_batch.runner.prepared_run import prepare
from dynts_batch.runner.worker import feed as feed_module
from dynts_batch.runner.worker.worker import Worker
from dynts_batch.testing.fake_engine import FakeEngine


@pytest.fixture
def make_worker(tmp_path):
    """A worker of a run of 12 rows in 3 shards, and that run."""

    def make(**groups):
        run = prepare(
            make_config(tmp_path, 12, run=_RUN | {"dir": str(tmp_path / "run")}, **groups),
            is_local=True,
        )
        return Worker("w", Job(run.config, run.source.schema, 0, os.getcwd())), run

    return make


_RUN = {"shard_rows": 4}


def _assignment(run, shard, *, held_back=(), may_have_checkpoint=False):
    source = run.source.read(shard * 4, shard * 4 + 4)
    items = tuple(Item(row.index, 0, row) for row in source.rows)
    columns = pack(source.columns)
    return Assignment(shard, 1, items, columns, frozenset(held_back), may_have_checkpoint, False)


def _work(worker, assignments=(), *, has_more=False, report_s=1.0):
    orders = Orders(has_more=has_more, report_s=report_s)
    return worker.work(list(assignments), orders, device_share=1.0)


def test_it_asks_for_more_before_its_engine_runs_dry(make_worker):
    worker, run = make_worker(model={"name": "fake:step_s=0.01"})
    report = _work(worker, [_assignment(run, 0), _assignment(run, 1)], has_more=True)
    assert report.num_wanted > 0
    assert report.num_running == 4
    assert not report.is_idle


def test_without_more_to_ask_for_it_works_until_all_is_committed(make_worker):
    worker, run = make_worker()
    # A busy disk may take longer than a second to commit.
    report = _work(worker, [_assignment(run, shard) for shard in range(3)], report_s=60.0)
    assert report.is_idle
    assert sorted(report.finished.units) == list(range(12))
    assert sorted(report.finished.committed) == [0, 1, 2]
    assert run.run_dir.finished_shards() == {0, 1, 2}
    assert report.finished.tally.rows == 12


def test_slow_grading_does_not_hold_up_the_engine(make_worker, monkeypatch):
    worker, run = make_worker()

    def grade(self, answer, reference, reasoning):
        time.sleep(0.1)
        return Grade(None, None)

    monkeypatch.setattr(Grader, "grade", grade)
    assignments = [_assignment(run, shard) for shard in range(3)]
    report = worker.work(assignments, Orders(report_s=0.3), device_share=1.0)
    assert report.num_running == 0  # the engine is through
    assert len(report.finished.units) < 12  # the grader is not
    assert not report.is_idle
    while not report.is_idle:
        report = _work(worker)
    assert run.run_dir.finished_shards() == {0, 1, 2}


def test_an_exception_for_one_request_costs_one_row(make_worker, monkeypatch):
    add_request = FakeEngine.add_request

    def stumble(self, request):
        if request.request_id == "p2":
            raise ZeroDivisionError("a tokenizer's bug")
        add_request(self, request)

    monkeypatch.setattr(FakeEngine, "add_request", stumble)
    worker, run = make_worker()
    _work(worker, [_assignment(run, 0)])
    errors = {row["request_id"]: row["error_type"] for row in stable_rows(run.config.run.dir)}
    assert errors == {"p0": None, "p1": None, "p2": "ZeroDivisionError", "p3": None}


def test_held_back_units_are_left_for_a_later_lease(make_worker):
    worker, run = make_worker()
    report = _work(worker, [_assignment(run, 0, held_back={1})])
    assert (report.finished.committed, report.finished.saved) == ([], [0])
    assert run.run_dir.read_checkpoint(0).num_rows == 3

    report = _work(worker, [_assignment(run, 0, may_have_checkpoint=True)])
    assert report.finished.committed == [0]
    assert report.finished.tally.rows == 1  # the others are not run again
    assert [row["request_id"] for row in stable_rows(run.config.run.dir)] == [
        "p0",
        "p1",
        "p2",
        "p3",
    ]


def test_closing_stores_the_finished_rows_of_unfinished_shards(make_worker):
    worker, run = make_worker(
        model={"name": "fake:step_s=0.05"}, memory={"max_seqs": 1}, sampling={"max_new_tokens": 10}
    )
    done = set()
    while not done:
        done |= set(_work(worker, [_assignment(run, 0)] if not done else []).finished.units)
    worker.close()
    checkpoint = run.run_dir.read_checkpoint(0)
    assert set(checkpoint["request_id"].to_pylist()) >= {f"p{unit}" for unit in done}
    (telemetry,) = run.run_dir.read_telemetry()
    assert telemetry["worker_id"].unique().to_pylist() == ["w"]
    assert telemetry["rss_peak_bytes"][-1].as_py() > 0
    assert telemetry["busy_s"][-1].as_py() > 0


def test_a_device_is_paid_for_from_loading_to_the_end_idle_or_not(make_worker, monkeypatch):
    """Only the engine's busy time counted: a worker could load and idle
    at any price below a cap."""

    def load(config, **settings):
        time.sleep(0.3)
        return load_engine(config, **settings)

    monkeypatch.setattr(feed_module, "load_engine", load)
    began_s = time.monotonic()
    worker, run = make_worker(cost={"usd_per_gpu_hour": 3600.0})
    loaded = _work(worker, report_s=0.01).spent_usd
    assert 0.3 <= loaded <= time.monotonic() - began_s
    report = _work(worker, [_assignment(run, shard) for shard in range(3)], report_s=60.0)
    time.sleep(0.3)
    spent_usd = worker.close().spent_usd
    assert report.spent_usd + 0.3 <= spent_usd <= time.monotonic() - began_s
    (samples,) = run.run_dir.read_telemetry()
    first_s, *_, last_s = samples["time_s"].to_pylist()
    assert last_s - first_s == pytest.approx(spent_usd, abs=0.1)
    device = measure_device_time([samples])
    assert device.held_s == pytest.approx(last_s - first_s)
    assert device.wall_s < device.held_s - 0.3  # tokens per second are not those of loading


def test_the_first_report_of_work_is_sampled_however_soon_after_loading(make_worker):
    worker, run = make_worker(model={"name": "fake:step_s=0.01"})
    _work(worker, [_assignment(run, 0)], report_s=0.05)
    worker.close()
    (samples,) = run.run_dir.read_telemetry()
    assert samples["num_running"].to_pylist()[:3] == [0, 0, 4]


def test_a_worker_with_a_part_of_a_gpu_takes_that_part_of_its_memory(tmp_path, monkeypatch):
    config = make_config(tmp_path)
    run, shares = prepare(config, is_local=True), []

    def load(config, *, num_threads, gpu_share):
        shares.append(gpu_share)
        return load_engine(config, num_threads=num_threads, gpu_share=gpu_share)

    monkeypatch.setattr(feed_module, "load_engine", load)
    for num_gpus in (0, 0.25, 1):
        Worker("w", Job(run.config, run.source.schema, num_gpus, os.getcwd())).close()
    assert shares == [1.0, 0.25, 1.0]


class _Meter:
    """A GPU that takes 100 W while the fake engine's clock runs, and 10 GiB."""

    def __init__(self, uuids):
        self.uuids = uuids
        self.joules = 0.0

    def start(self): ...
    def close(self): ...

    def sample(self):
        self.joules += 100.0

    def energy_j(self, uuid):
        assert uuid in self.uuids
        return self.joules

    def summary(self):
        devices = [
            SimpleNamespace(
                uuid=uuid,
                name="Fake GPU",
                memory_peak_bytes=10 * 2**30,
                utilisation_mean=0.5,
                power_mean_w=100.0,
                energy_j=self.joules,
            )
            for uuid in self.uuids
        ]
        return SimpleNamespace(devices=devices, process=SimpleNamespace(rss_peak_bytes=1))


def test_rows_carry_the_gpu_and_sum_to_its_energy(make_worker, monkeypatch):
    monkeypatch.setattr(FakeEngine, "gpu_uuids", ("GPU-1",))
    monkeypatch.setattr("dynts_batch.runner.worker.devices.DeviceMeter", _Meter)
    worker, run = make_worker(
        model={"name": "fake:step_s=0.1,simulated=true"},
        cost={"usd_per_gpu_hour": 3600.0, "usd_per_kwh": 3.6e6},
    )
    report = worker.work([_assignment(run, 0)], Orders(), device_share=0.5)
    while not report.is_idle:
        report = _work(worker)
    rows = [row for batch in run.run_dir.read_rows() for row in batch.to_pylist()]
    assert sum(row["energy_j"] for row in rows) == pytest.approx(50.0)  # half of a shared GPU
    for row in rows:
        assert row["cost_usd"] == pytest.approx(row["device_s"] + row["energy_j"])
        assert (row["device_name"], row["device_uuid"]) == ("Fake GPU", "GPU-1")
        assert row["device_peak_bytes"] == 10 * 2**30


def test_a_model_on_two_gpus_costs_the_time_and_the_energy_of_both(make_worker, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)  # its cluster has no GPUs
    monkeypatch.setattr(FakeEngine, "gpu_uuids", ("GPU-1", "GPU-2"))
    monkeypatch.setattr("dynts_batch.runner.worker.devices.DeviceMeter", _Meter)
    worker, run = make_worker(
        model={"name": "fake:step_s=0.1,simulated=true"},
        engine={"kind": "vllm"},
        workers={"num_gpus": 2},
        cost={"usd_per_gpu_hour": 3600.0},
    )
    report = worker.work([_assignment(run, 0)], Orders(), device_share=1.0)
    while not report.is_idle:
        report = _work(worker)
    rows = [row for batch in run.run_dir.read_rows() for row in batch.to_pylist()]
    assert sum(row["energy_j"] for row in rows) == pytest.approx(200.0)  # 100 of each
    assert sum(row["device_s"] for row in rows) == pytest.approx(2 * worker._feed.busy_s)
    assert all(row["cost_usd"] == pytest.approx(row["device_s"]) for row in rows)
    assert {(row["device_name"], row["device_uuid"]) for row in rows} == {
        ("2 x Fake GPU", "GPU-1,GPU-2")
    }
    assert worker.info.num_devices == 2
    assert report.spent_usd == pytest.approx(
        2 * worker._feed.busy_s, rel=0.5
    )  # held time, at least
