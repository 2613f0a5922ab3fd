"""Laws of a run, without Ray: whatever dies, every unit ends up with its one right row."""

import dataclasses
import os
import re
import time

import pytest
from fake_run import make_config, stable_rows, write_problems
from local_fleet import LocalFleet

from dynts_batch.data.progress import read_progress
from dynts_batch.data.run_dir import RunDir
from dynts_batch.errors import ConfigError, DyntsError, RunDirError
from dynts_batch.report.lines import end_lines
from dynts_batch.report.totals import add_up
from dynts_batch.runner.driver.driver import Driver
from dynts_batch.runner.driver.limits import Limits, spent_usd
from dynts_batch.runner.messages import Died, Failed, Job, Placed
from dynts_batch.runner.prepared_run import prepare


def _run(
    config,
    *,
    num_workers=2,
    dies=lambda call: False,
    stop_after_rows=None,
    report_s=None,
    asked=None,
):
    """One start of a run, or of the shards `asked` alone: its driver, what it warned of,
    its states, and the fleet."""
    run = prepare(config, is_local=True)
    if asked is not None:
        run = dataclasses.replace(run, shards_to_do=asked)
    job = Job(run.config, run.source.schema, 0, os.getcwd())
    fleet = LocalFleet(job, dies=dies, report_s=report_s)
    states, warnings = [], []
    driver = Driver(
        run,
        fleet,
        num_workers=num_workers,
        show=states.append,
        warn=warnings.append,
        limits=Limits.of(config, spent_usd=spent_usd(run.run_dir)),
    )

    def is_stopped():
        return stop_after_rows is not None and states and states[-1].tally.rows >= stop_after_rows

    is_complete = driver.run(is_stopped)
    wanted = set(range(run.plan.num_shards) if asked is None else asked)
    assert is_complete == (wanted <= run.run_dir.finished_shards())
    return driver, warnings, states, fleet


def test_every_unit_gets_its_row_in_the_order_of_the_input(tmp_path):
    config = make_config(tmp_path, sampling={"num_samples": 3, "temperature": 1.0})
    _run(config)
    rows = stable_rows(config.run.dir)
    units = [(row["request_id"], row["sample_index"]) for row in rows]
    assert units == [(f"p{i}", k) for i in range(23) for k in range(3)]
    assert {row["finish_reason"] for row in rows} == {"stop", "length"}
    assert all(row["correct"] is not None for row in rows)
    assert any(row["correct"] for row in rows)


def test_several_small_shards_are_in_flight_in_a_worker(tmp_path):
    config = make_config(tmp_path, run={"shard_rows": 1, "dir": str(tmp_path / "run")})
    _, _, states, fleet = _run(config)
    assert min(fleet.shards_at_once.values()) > 1
    assert states[-1].num_done == 23


def test_rows_that_nobody_asked_for_are_neither_done_nor_to_be_done(tmp_path):
    """A tuning of 10 of 4,000 questions began at 100% of 4,000 rows."""
    config = make_config(tmp_path, run={"shard_rows": 5, "dir": str(tmp_path / "run")})
    _, _, states, _ = _run(config, asked=(1, 4))
    assert states[0].num_done < states[-1].num_done == states[-1].num_rows == 5 + 3
    _, _, states, _ = _run(config, asked=(0,))
    assert states[-1].num_done == states[-1].num_rows == 5 + 3 + 5


@pytest.mark.parametrize("checkpoint_s", [1e-9, 60.0])
def test_a_run_with_dying_workers_equals_an_undisturbed_one(tmp_path, checkpoint_s):
    calm = make_config(tmp_path, run={"dir": str(tmp_path / "calm")})
    _run(calm)
    config = make_config(
        tmp_path, run={"dir": str(tmp_path / "run"), "checkpoint_s": checkpoint_s, "shard_rows": 5}
    )
    _, warnings, states, _ = _run(config, dies=lambda call: call in (1, 3, 4))
    assert sum("died and is replaced" in text for text in warnings) == 3
    assert stable_rows(config.run.dir) == stable_rows(calm.run.dir)
    assert states[-1].num_done == 23


def test_a_shard_that_was_committed_but_not_reported_is_not_run_again(tmp_path):
    config = make_config(tmp_path, num_rows=8, run={"dir": str(tmp_path / "run"), "shard_rows": 4})

    class Mute(LocalFleet):
        """Its first worker stores all it has, and dies before it says so."""

        def _work(self, worker_id, assignments, orders):
            event = super()._work(worker_id, assignments, orders)
            if not worker_id.startswith("0-"):
                return event
            self._workers.pop(worker_id).close()
            return Died(worker_id, "silenced")

    run = prepare(config, is_local=True)
    fleet = Mute(Job(run.config, run.source.schema, 0, os.getcwd()))
    states = []
    driver = Driver(
        run,
        fleet,
        num_workers=1,
        show=states.append,
        warn=lambda text: None,
    )
    assert driver.run(lambda: False)
    assert states[-1].num_done == 8
    assert states[-1].tally.rows == 0


def test_a_stopped_run_resumes_and_equals_an_undisturbed_one(tmp_path, monkeypatch):
    calm = make_config(tmp_path, run={"dir": str(tmp_path / "calm")})
    _run(calm)
    config = make_config(tmp_path, model={"name": "fake:step_s=0.01"}, memory={"max_seqs": 2})
    rows_kept = [0]
    while rows_kept[-1] < 23:
        _, warnings, _, _ = _run(config, stop_after_rows=4, report_s=0.05)
        assert not warnings
        progress = read_progress(RunDir(config.run.dir), now=0.0)
        rows_kept.append(progress.finished_rows + progress.checkpointed_rows)
        assert rows_kept[-1] >= min(23, rows_kept[-2] + 4), "a row that was done is lost"
    assert len(rows_kept) > 2
    assert stable_rows(config.run.dir) == stable_rows(calm.run.dir)


def test_only_the_request_that_kills_is_quarantined(tmp_path):
    config = make_config(tmp_path)
    write_problems(tmp_path / "problems.jsonl", 23, {7: "please [[raise]] now", 8: "[[raise]]"})
    _run(config)
    failed = [row for row in stable_rows(config.run.dir) if row["finish_reason"] == "error"]
    assert [(row["request_id"], row["error_type"]) for row in failed] == [
        ("p7", "QuarantinedError"),
        ("p8", "QuarantinedError"),
    ]


def test_a_bad_source_row_becomes_an_error_row_with_its_reason(tmp_path):
    config = make_config(tmp_path)
    config = dataclasses.replace(config, input=dataclasses.replace(config.input, id_column=None))
    with (tmp_path / "problems.jsonl").open("a") as file:
        file.write('{"id": "bad", "question": \n{"id": "null", "question": null, "answer": "1"}\n')
    _run(config)
    errors = [row for row in stable_rows(config.run.dir) if row["finish_reason"] == "error"]
    assert [row["error_type"] for row in errors] == ["BadRowError", "BadRowError"]
    assert len(stable_rows(config.run.dir)) == 25


def test_a_prompt_above_the_budget_becomes_an_error_row(tmp_path):
    config = make_config(tmp_path)
    write_problems(tmp_path / "problems.jsonl", 6, {2: "word " * 40})
    _run(config)
    errors = [row for row in stable_rows(config.run.dir) if row["finish_reason"] == "error"]
    assert [(row["request_id"], row["error_type"]) for row in errors] == [
        ("p2", "PromptTooLongError")
    ]


def test_retry_failed_runs_the_error_rows_only(tmp_path):
    config = make_config(tmp_path, sampling={"max_new_tokens": 5})
    problems = (tmp_path / "problems.jsonl").read_text()
    # The same content under the fingerprint, but the engine raises: as a transient failure would.
    trouble = dataclasses.replace(config, run=dataclasses.replace(config.run, max_attempts=1))
    _run(trouble, num_workers=1, dies=lambda call: call == 1)
    before = {row["request_id"]: row for row in stable_rows(config.run.dir)}
    failed = {id_ for id_, row in before.items() if row["finish_reason"] == "error"}
    assert 0 < len(failed) < 23
    assert (tmp_path / "problems.jsonl").read_text() == problems

    retry = dataclasses.replace(config, run=dataclasses.replace(config.run, retry_failed=True))
    _, _, states, _ = _run(retry)
    assert states[-1].tally.rows == len(failed)
    after = {row["request_id"]: row for row in stable_rows(config.run.dir)}
    assert len(after) == 23
    assert not any(row["finish_reason"] == "error" for row in after.values())
    assert all(after[id_] == before[id_] for id_ in before.keys() - failed)


@pytest.mark.parametrize(
    ("node", "verdict"),
    [
        (
            "here",
            "workers die whatever they are given: 6 died before any row was done, 4 of them .*",
        ),
        (None, "workers die whatever they are given: 6 died .*"),  # none ever ran anywhere
    ],
)
def test_workers_that_only_die_end_the_run_instead_of_failing_every_row(tmp_path, node, verdict):
    config = make_config(tmp_path, run={"dir": str(tmp_path / "run"), "max_attempts": 3})
    run = prepare(config, is_local=True)

    class Hopeless(LocalFleet):
        def _load(self, worker_id, max_seqs):
            return Died(worker_id, "out of memory", node_id=node)

    fleet = Hopeless(Job(run.config, run.source.schema, 0, os.getcwd()))
    driver = Driver(
        run,
        fleet,
        num_workers=2,
        show=lambda state: None,
        warn=lambda text: None,
    )
    with pytest.raises(DyntsError, match=rf"{verdict} out of memory"):
        driver.run(lambda: False)


def test_an_unwritable_run_directory_ends_the_run_and_leaves_it_resumable(tmp_path, monkeypatch):
    config = make_config(tmp_path)

    def fail(*args):
        raise RunDirError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(RunDir, "commit_shard", fail)
        with pytest.raises(RunDirError, match="no space left"):
            _run(config)
    _run(config)
    assert len(stable_rows(config.run.dir)) == 23


def test_costs_sum_to_the_device_time(tmp_path):
    config = make_config(
        tmp_path,
        model={"name": "fake:step_s=0.5,simulated=true"},
        cost={"usd_per_gpu_hour": 36.0},
    )
    _, _, states, _ = _run(config)
    tally = states[-1].tally
    assert tally.device_s > 1
    assert tally.cost_usd == pytest.approx(tally.device_s * 0.01)
    assert tally.energy_j is None  # no GPU: unknown, not zero


def test_a_sample_of_rows_is_traced_whoever_dies_and_no_other_column_changes(tmp_path):
    plain = make_config(tmp_path, run={"dir": str(tmp_path / "plain"), "shard_rows": 5})
    _run(plain)
    traced_run = {"dir": str(tmp_path / "run"), "shard_rows": 5, "trace_rows": 4}
    config = make_config(tmp_path, run=traced_run)
    _run(config, dies=lambda call: call in (1, 3))
    assert stable_rows(config.run.dir) == stable_rows(plain.run.dir)
    rows = _rows(config)
    assert [row["token_trace"] is not None for row in rows].count(True) == 4
    assert all(row["token_trace"] is None for row in _rows(plain))
    for row in rows:
        if row["token_trace"] is not None:
            assert (
                len(row["token_trace"]["token_texts"])
                == row["prompt_tokens"] + row["completion_tokens"]
            )


def _rows(config):
    return [row for batch in RunDir(config.run.dir).read_rows() for row in batch.to_pylist()]


_PRICED = {"model": {"name": "fake:step_s=1,simulated=true"}, "cost": {"usd_per_gpu_hour": 3600.0}}


@pytest.mark.parametrize("shard_rows", [3, 16])
def test_a_cost_cap_ends_the_run_within_five_per_cent_and_it_resumes(tmp_path, shard_rows):
    run = {"shard_rows": shard_rows, "dir": str(tmp_path / "calm")}
    calm = make_config(tmp_path, 300, run=run, **_PRICED)
    _, _, states, _ = _run(calm)
    planned_usd = states[-1].spent_usd
    cap_usd = planned_usd / 2

    capped = {**run, "dir": str(tmp_path / "run"), "max_cost_usd": cap_usd}
    config = make_config(tmp_path, 300, run=capped, **_PRICED)
    driver, _, states, _ = _run(config)
    assert 0.95 * cap_usd <= states[-1].spent_usd <= 1.05 * cap_usd
    assert driver.limit.startswith(f"run.max_cost_usd ({cap_usd:g})")
    # What was paid for is there: nothing was cut off.
    assert states[-1].tally.cost_usd >= 0.95 * cap_usd
    done = read_progress(RunDir(config.run.dir), now=0.0)
    assert done.finished_rows + done.checkpointed_rows == states[-1].tally.rows

    _run(make_config(tmp_path, 300, run={**capped, "max_cost_usd": 2 * planned_usd}, **_PRICED))
    assert stable_rows(config.run.dir) == stable_rows(calm.run.dir)
    assert spent_usd(RunDir(config.run.dir)) == pytest.approx(planned_usd, rel=0.05)


def test_the_time_held_costs_no_less_than_the_rows_in_it(tmp_path):
    price = {"usd_per_gpu_hour": 3600.0}
    config = make_config(tmp_path, 8, model={"name": "fake:step_s=0.03"}, cost=price)
    _, _, states, _ = _run(config, num_workers=1)
    totals = add_up(RunDir(config.run.dir))
    assert 0 < totals.dollars.total < totals.held_usd
    assert spent_usd(RunDir(config.run.dir)) == pytest.approx(totals.held_usd, rel=0.3)
    assert states[-1].spent_usd == pytest.approx(totals.held_usd, rel=0.3)


def test_a_time_cap_ends_the_run_and_it_resumes(tmp_path, monkeypatch):
    run = {"max_hours": 0.5 / 3600, "dir": str(tmp_path / "run")}
    config = make_config(tmp_path, 60, model={"name": "fake:step_s=0.01"}, run=run)
    driver, _, states, _ = _run(config)
    assert 0 < states[-1].num_done < 60
    assert driver.limit.startswith("run.max_hours")
    unlimited = dataclasses.replace(config.run, max_hours=None)
    _run(dataclasses.replace(config, run=unlimited))
    assert len(stable_rows(config.run.dir)) == 60


def test_running_out_of_memory_shrinks_the_arena_and_costs_no_row(tmp_path):
    config = make_config(tmp_path)
    write_problems(tmp_path / "problems.jsonl", 23, {3: "[[oom:2]] a", 11: "[[oom:1]] b"})
    _, warnings, states, _ = _run(config, num_workers=1)
    assert states[-1].num_done == 23
    assert not any(row["error_type"] for row in stable_rows(config.run.dir))
    samples = next(iter(RunDir(config.run.dir).read_telemetry()))
    assert (samples["max_seqs"][0].as_py(), samples["max_seqs"][-1].as_py()) == (4, 1)
    assert "goes on with 1 sequences at once instead of" in warnings[-1]


def test_memory_that_runs_out_is_said_while_it_does_and_at_the_end(tmp_path):
    """A few prompts took an arena from 64 sequences to 6 for the rest of the run,
    and nothing said so."""
    special = {row: f"[[oom:6]] problem {row}" for row in range(0, 300, 10)}
    config = make_config(tmp_path, 300, special, memory={"max_seqs": 64})
    _, warnings, _, _ = _run(config, num_workers=2)
    told = [text for text in warnings if "ran out of memory and goes on with" in text]
    assert {text.split("goes on with ")[1].split()[0] for text in told} >= {"6"}
    # Both workers logged it, again and again: it is told once.
    (reason,) = [text for text in warnings if text not in told]
    assert re.fullmatch(r"worker \S+ warns: out of memory with \d+ sequences: .*", reason)
    lines = {line.name: line.value for line in end_lines(add_up(RunDir(config.run.dir)))}
    assert lines["arena shrunk to"] == "6"
    calm = make_config(tmp_path, 5, run={"dir": str(tmp_path / "calm")})
    _run(calm)
    assert "arena shrunk to" not in {x.name for x in end_lines(add_up(RunDir(calm.run.dir)))}


def test_a_request_that_no_arena_holds_is_quarantined(tmp_path):
    config = make_config(tmp_path)
    write_problems(tmp_path / "problems.jsonl", 23, {3: "[[oom:0]]"})
    _run(config)
    failed = [row for row in stable_rows(config.run.dir) if row["error_type"]]
    assert [(row["request_id"], row["error_type"]) for row in failed] == [
        ("p3", "QuarantinedError")
    ]


def test_a_worker_whose_machine_goes_away_stores_its_rows_and_is_no_death(tmp_path):
    config = make_config(tmp_path)

    class Spot(LocalFleet):
        """Its first worker gets a notice after its first report."""

        def _work(self, worker_id, assignments, orders):
            if worker_id.startswith("0-") and self._num_calls > 0:
                self._workers[worker_id].leave()
            return super()._work(worker_id, assignments, orders)

    run = prepare(config, is_local=True)
    fleet = Spot(Job(run.config, run.source.schema, 0, os.getcwd()))
    states, warnings = [], []
    driver = Driver(
        run,
        fleet,
        num_workers=2,
        show=states.append,
        warn=warnings.append,
    )
    assert driver.run(lambda: False)
    (warning,) = warnings
    assert "stored its rows and left: its machine goes away" in warning
    attempts = {r["attempt"] for b in run.run_dir.read_rows() for r in b.to_pylist()}
    assert attempts == {1}
    assert states[-1].tally.rows == 23


def test_no_more_workers_start_than_there_is_work_for_and_idle_ones_go(tmp_path):
    run = {"shard_rows": 8, "dir": str(tmp_path / "run")}
    workers = {"min": 1, "max": 16}
    # Shards end further apart than reports come.
    model = {"name": "fake:step_s=0.01"}
    config = make_config(tmp_path, 23, model=model, run=run, workers=workers)
    _, _, states, fleet = _run(config, num_workers=16, report_s=0.01)
    assert fleet.num_started == 3
    num_workers = [state.num_workers for state in states if state.num_done < 23]
    assert max(num_workers) == 3
    assert num_workers[-1] < 3


def test_a_failed_worker_does_not_keep_the_others_from_storing_their_rows(tmp_path, monkeypatch):
    run = {"shard_rows": 10, "checkpoint_s": 1000.0, "dir": str(tmp_path / "run")}
    config = make_config(tmp_path, 40, model={"name": "fake:step_s=0.005"}, run=run)

    class Blind(LocalFleet):
        """The folder is gone, on the machine of its second worker, after some time."""

        def _work(self, worker_id, assignments, orders):
            if worker_id.startswith("1-") and self._num_calls > 6:
                del self._workers[worker_id]
                return Failed(worker_id, RunDirError("cannot write there"))
            return super()._work(worker_id, assignments, orders)

    prepared = prepare(config, is_local=True)
    job = Job(prepared.config, prepared.source.schema, 0, os.getcwd())
    fleet = Blind(job, report_s=0.05)
    driver = Driver(
        prepared,
        fleet,
        num_workers=2,
        show=lambda state: None,
        warn=lambda text: None,
    )
    with pytest.raises(RunDirError, match="cannot write there"):
        driver.run(lambda: False)
    done = read_progress(RunDir(config.run.dir), now=0.0)
    assert done.finished_rows + done.checkpointed_rows > 0
    _run(config)
    assert len(stable_rows(config.run.dir)) == 40


def test_what_one_machine_cannot_load_ends_no_run_while_others_work(tmp_path):
    """As where the shared folder is not mounted there;
    where nobody is ready yet, everybody would fail so."""
    config = make_config(tmp_path)

    class Blind(LocalFleet):
        """All machines but that of its first worker."""

        def _load(self, worker_id, max_seqs):
            event = super()._load(worker_id, max_seqs)
            if worker_id.startswith("0-"):
                return event
            del self._workers[worker_id]
            return Failed(worker_id, RunDirError("it has no fingerprint.json"), "there")

        def nodes(self):
            return {"here": "here", "there": "there"}

    prepared = prepare(config, is_local=True)
    fleet = Blind(Job(prepared.config, prepared.source.schema, 0, os.getcwd()), report_s=0.02)
    warnings = []
    driver = Driver(prepared, fleet, num_workers=2, show=lambda state: None, warn=warnings.append)
    assert driver.run(lambda: False)
    assert "on there died and is replaced, its rows are run again: it has no finger" in warnings[0]


@pytest.mark.parametrize("num_good", [1, 2])
def test_one_that_cannot_load_is_not_started_again_and_again_on_the_only_node(tmp_path, num_good):
    """A GPU that is broken, or held by others:
    each row of its neighbour had it started once more."""
    run = {"shard_rows": 1, "dir": str(tmp_path / "run"), "max_attempts": 3}
    config = make_config(tmp_path, 60, run=run, memory={"max_seqs": 1})

    class Cramped(LocalFleet):
        """It has room for so many."""

        def _load(self, worker_id, max_seqs):
            event = super()._load(worker_id, max_seqs)
            if int(worker_id.partition("-")[0]) < num_good:
                return event
            del self._workers[worker_id]
            return Failed(worker_id, ConfigError("memory.kv_gib must fit"), "here")

    prepared = prepare(config, is_local=True)
    job = Job(prepared.config, prepared.source.schema, 0, os.getcwd())
    # Long enough for a row: until there is one, nobody may say that the node is bad.
    fleet = Cramped(job, report_s=0.2)
    warnings = []
    driver = Driver(
        prepared, fleet, num_workers=num_good + 1, show=lambda state: None, warn=warnings.append
    )
    assert driver.run(lambda: False)
    assert fleet.num_started <= num_good + 6
    (named,) = [text for text in warnings if text.startswith("no more workers are started there")]
    assert "memory.kv_gib must fit" in named
    assert len(stable_rows(config.run.dir)) == 60


@pytest.mark.parametrize("num_good", [0, 1])
@pytest.mark.parametrize("folder", ["rows", "checkpoints"])
def test_rows_that_are_errors_are_no_sign_that_a_run_has_worked(tmp_path, num_good, folder):
    special = dict.fromkeys(range(num_good, 6), "word " * 40)
    config = make_config(tmp_path, 6, special, run={"dir": str(tmp_path / "run"), "shard_rows": 1})
    _run(config)
    run_dir = RunDir(config.run.dir)
    if folder == "checkpoints":
        for shard in run_dir.finished_shards():
            run_dir.write_checkpoint(shard, run_dir.read_shard(shard))
        for file in (tmp_path / "run" / "rows").iterdir():
            file.unlink()
    assert prepare(config, is_local=True).has_worked == bool(num_good)


@pytest.mark.parametrize("is_loading", [False, True])
def test_a_cost_cap_counts_workers_that_idle_and_those_that_load(tmp_path, is_loading):
    """One long shard and three idle workers: the driver knew of a quarter of what they cost."""
    shard_rows = 1 if is_loading else 64
    run = {"shard_rows": shard_rows, "dir": str(tmp_path / "run"), "max_cost_usd": 2.0}
    config = make_config(
        tmp_path,
        64,
        model={"name": "fake:step_s=0.02"},
        memory={"max_seqs": 1},
        run=run,
        workers={"min": 4, "max": 4},
        cost={"usd_per_gpu_hour": 3600.0},
    )

    class Slow(LocalFleet):
        """All of its workers but the first load for ever;
        if not, they are ready at the same moment."""

        def wait(self, timeout_s):
            events = super().wait(timeout_s)
            while any(worker_id not in self._workers for worker_id, _ in self._calls):
                events += super().wait(timeout_s)
            return events

        def _load(self, worker_id, max_seqs):
            if is_loading and not worker_id.startswith("0-"):
                return Placed(worker_id)
            return super()._load(worker_id, max_seqs)

    prepared = prepare(config, is_local=True)
    job = Job(prepared.config, prepared.source.schema, 0, os.getcwd())
    limits, states = Limits.of(config, spent_usd=0.0), []
    driver = Driver(
        prepared,
        Slow(job, report_s=0.02),
        num_workers=4,
        show=states.append,
        warn=lambda text: None,
        limits=limits,
    )
    began_s = time.monotonic()
    assert not driver.run(lambda: False)
    assert driver.limit.startswith("run.max_cost_usd (2)")
    assert time.monotonic() - began_s < 1.8
    assert 1.5 < states[-1].spent_usd < 4.0
    if not is_loading:
        assert spent_usd(RunDir(config.run.dir)) == pytest.approx(states[-1].spent_usd, rel=0.2)
