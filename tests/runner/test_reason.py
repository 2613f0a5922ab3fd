"""Laws of a whole run on Ray: real processes, really killed."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from fake_run import stable_rows, write_config, write_problems

from dynts_batch.config_file import load_config
from dynts_batch.data import claim as claim_module
from dynts_batch.data.run_dir import RunDir
from dynts_batch.engine import Engine
from dynts_batch.records import Request
from dynts_batch.runner.reason import reason
from dynts_batch.testing.fake_model import FakeModel

pytestmark = pytest.mark.ray

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _on_this_machine(monkeypatch):
    """Runs in this process use the test cluster as if they had started it."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def _config(folder: Path, num_rows: int = 40, special=None, **groups) -> str:
    folder.mkdir(exist_ok=True)
    problems = write_problems(folder / "problems.jsonl", num_rows, special)
    return str(write_config(folder, problems, **groups))


def _reason_process(config: str, address: str, cwd: Path) -> subprocess.Popen[str]:
    """The job as a user starts it, in another folder than the configuration's."""
    return subprocess.Popen(
        [sys.executable, str(REPOSITORY / "jobs" / "reason.py"), config],
        env={**os.environ, "RAY_ADDRESS": address, "PYTHONPATH": str(REPOSITORY)},
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _wait_for(condition, timeout_s: float = 60.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "it did not come"
        time.sleep(0.02)


def _files(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*")}


@pytest.fixture(scope="module")
def undisturbed(cluster, tmp_path_factory) -> list:
    folder = tmp_path_factory.mktemp("undisturbed")
    assert reason(_config(folder), []) == 0
    return stable_rows(folder / "run")


def test_a_run_writes_every_row_and_a_second_one_does_nothing(cluster, tmp_path, capsys):
    config = _config(tmp_path)
    assert reason(config, []) == 0
    first = capsys.readouterr()
    assert "rows" in first.out
    assert re.search(r"rows +40 ", first.out)
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "rows").iterdir()}
    manifest = (tmp_path / "run" / "manifest.json").stat().st_mtime_ns

    assert reason(config, []) == 0
    second = capsys.readouterr()
    assert "nothing to do: all 40 rows are in" in second.err
    assert second.out == first.out
    assert {path: path.stat().st_mtime_ns for path in files} == files
    assert (tmp_path / "run" / "manifest.json").stat().st_mtime_ns == manifest


def test_rows_that_need_more_room_run_again_on_workers_of_their_own(cluster, tmp_path, capsys):
    policy = {"name": "window", "window_size": 4, "budget": 10, "retry_budget": 14}
    config = _config(tmp_path, policy=policy)
    assert reason(config, []) == 0
    rows = [r for b in RunDir(str(tmp_path / "run")).read_rows() for r in b.to_pylist()]
    again = [row for row in rows if row["first_attempt"]]
    assert len(again) == sum(row["finish_reason"] == "length" for row in rows) > 0
    assert {row["peak_cache_len"] for row in again} == {14}
    first = {row["worker_id"] for row in rows if not row["first_attempt"]}
    assert not first & {row["worker_id"] for row in again}
    assert f"{len(again)} rows in" in capsys.readouterr().err
    assert reason(config, []) == 0
    assert "nothing to do: all 40 rows are in" in capsys.readouterr().err


def test_a_killed_worker_costs_no_row(cluster, undisturbed, tmp_path, capsys):
    config = _config(
        tmp_path,
        model={"name": "fake:step_s=0.05"},
        run={"dir": str(tmp_path / "run"), "shard_rows": 5, "checkpoint_s": 0.1},
        workers={"num_cpus": 0.25, "max": 2},
    )
    killed = _signal_a_worker_once(tmp_path / "run" / "checkpoints", signal.SIGKILL)
    assert reason(config, []) == 0
    assert killed.wait() == 0
    note = "died and is replaced, its rows are run again: Worker unexpectedly exits"
    assert note in capsys.readouterr().err
    assert stable_rows(tmp_path / "run") == undisturbed
    attempts = {
        r["attempt"] for b in RunDir(str(tmp_path / "run")).read_rows() for r in b.to_pylist()
    }
    assert attempts == {1, 2}


@pytest.mark.long
def test_a_policy_from_outside_the_package_runs_on_the_workers(tmp_path):
    """Only its name is in the configuration:
    the module is found on PYTHONPATH, here and on the workers.

    It is the window by another name, so the embedded model must write the same rows.
    """
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "my_window.py").write_text(
        "from dynts_batch.kvcache.policies.baselines.window import Window\n\nclass Mine(Window):\n"
        "    pass\n"
    )
    run_dir = tmp_path / "run"
    done = subprocess.run(
        [
            sys.executable, str(REPOSITORY / "jobs" / "reason.py"),
            str(REPOSITORY / "configs" / "quickstart.yaml"),
            "policy.name=my_window:Mine", "policy.budget=160", "input.limit=3",
            "sampling.max_new_tokens=150",
            "workers.max=1", "memory.max_seqs=3", f"run.dir={run_dir}",
        ],
        env={**os.environ, "PYTHONPATH": f"{REPOSITORY}:{outside}"},
        cwd="/", capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    config = load_config(run_dir / "config.yaml", ["policy.name=window"])
    engine = Engine.load(config.model, config.policy, config.sampling, config.memory)
    rows = RunDir(str(run_dir)).read_shard(0).to_pylist()
    requests = [Request(row["request_id"], prompt=row["question"]) for row in rows]
    of_window = {each.request_id: each for each in engine.generate(requests)}
    for row in rows:
        expected = of_window[row["request_id"]]
        assert row["reasoning"] == expected.reasoning
        assert row["num_evictions"] == expected.num_evictions > 0


def _signal_a_worker_once(checkpoints: Path, number: int) -> subprocess.Popen[bytes]:
    """A process that waits for a row of an unfinished shard, and then signals a worker."""
    me = psutil.Process()
    code = f"""
import os, pathlib, psutil, time
while not any(pathlib.Path({str(checkpoints)!r}).glob("*")):
    time.sleep(0.01)
for child in psutil.Process({me.pid}).children(recursive=True):
    if child.cmdline() and child.cmdline()[0].startswith("ray::WorkerActor"):
        os.kill(child.pid, {int(number)})
        break
else:
    raise SystemExit("no worker to signal")
"""
    return subprocess.Popen([sys.executable, "-c", code])


def test_a_killed_driver_resumes_and_equals_an_undisturbed_run(cluster, undisturbed, tmp_path):
    config = _config(
        tmp_path,
        model={"name": "fake:step_s=0.05"},
        run={"dir": str(tmp_path / "run"), "shard_rows": 5, "checkpoint_s": 0.1},
    )
    first = _reason_process(config, cluster, cwd=Path("/"))
    _wait_for(lambda: _files(tmp_path / "run" / "rows"))
    first.kill()
    first.communicate()
    finished = _files(tmp_path / "run" / "rows")
    assert 0 < len(finished) < 8
    assert not (tmp_path / "run" / "manifest.json").exists()

    Path(config).write_text(Path(config).read_text().replace("step_s=0.05", "step_s=0"))
    second = _reason_process(config, cluster, cwd=Path("/"))
    _out, err = second.communicate(timeout=120)
    assert second.returncode == 0, err
    assert "resuming" in err
    assert stable_rows(tmp_path / "run") == undisturbed


def test_a_second_driver_is_refused_and_the_first_one_ends_as_if_alone(
    cluster, undisturbed, tmp_path, capsys
):
    config = _config(tmp_path, model={"name": "fake:step_s=0.05"})
    first = _reason_process(config, cluster, cwd=tmp_path)
    _wait_for(lambda: (tmp_path / "run" / "driver.json").exists())
    assert reason(config, []) == 2
    message = f"must have one driver at a time, got a second one while process {first.pid} on"
    assert message in capsys.readouterr().err
    _out, err = first.communicate(timeout=60)
    assert first.returncode == 0, err
    assert stable_rows(tmp_path / "run") == undisturbed
    assert not (tmp_path / "run" / "driver.json").exists()


def test_a_driver_whose_run_was_taken_over_stores_its_rows_and_ends(
    cluster, undisturbed, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(claim_module, "BEAT_S", 0.1)
    config = _config(tmp_path, model={"name": "fake:step_s=0.05"})
    claim = tmp_path / "run" / "driver.json"

    has_stopped = threading.Event()

    def take_over() -> None:
        """Beat as another driver does. One write might fall between this driver's look and beat."""
        _wait_for(lambda: _files(tmp_path / "run" / "rows"))
        while not has_stopped.wait(0.02):
            (tmp_path / "beat").write_text('{"driver": "another", "pid": 7, "host": "elsewhere"}')
            (tmp_path / "beat").rename(claim)

    with ThreadPoolExecutor() as threads:
        taken = threads.submit(take_over)
        try:
            assert reason(config, []) == 2
        finally:
            has_stopped.set()
        taken.result()
    assert "was taken over by process 7 on elsewhere" in capsys.readouterr().err
    assert 0 < len(_files(tmp_path / "run" / "rows")) < 8
    assert claim.exists()
    claim.unlink()
    assert reason(config, ["model.name=fake"]) == 0
    assert stable_rows(tmp_path / "run") == undisturbed


def test_sigterm_stores_the_rows_and_leaves_a_hint(cluster, undisturbed, tmp_path):
    config = _config(
        tmp_path,
        model={"name": "fake:step_s=0.05"},
        run={"dir": str(tmp_path / "run"), "shard_rows": 40, "checkpoint_s": 0.2},
    )
    process = _reason_process(config, cluster, cwd=tmp_path)
    _wait_for(lambda: _files(tmp_path / "run" / "checkpoints"))
    process.send_signal(signal.SIGTERM)
    _out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, err
    assert "the same command goes on from there" in err
    assert "Traceback" not in err
    kept = RunDir(str(tmp_path / "run")).read_checkpoint(0).num_rows
    assert f"stopped with {kept} of 40 rows" in err

    assert reason(config, ["model.name=fake"]) == 0
    assert stable_rows(tmp_path / "run") == undisturbed


def test_a_request_that_kills_its_worker_is_quarantined_and_the_status_says_so(
    cluster, undisturbed, tmp_path, capsys
):
    config = _config(tmp_path, special={17: "[[kill]]"}, run={"dir": str(tmp_path / "run")})
    assert reason(config, ["run.max_attempts=2", "run.shard_rows=5"]) == 3
    rows = stable_rows(tmp_path / "run")
    failed = [(row["request_id"], row["error_type"]) for row in rows if row["error_type"]]
    assert failed == [("p17", "QuarantinedError")]
    others = [row for row in rows if row["request_id"] != "p17"]
    assert others == [row for row in undisturbed if row["request_id"] != "p17"]
    # Finished, and still 3: a failed row does not heal by asking again.
    assert reason(config, ["run.max_attempts=2", "run.shard_rows=5"]) == 3


def test_a_hung_worker_is_replaced_and_what_hangs_it_is_quarantined(
    cluster, undisturbed, tmp_path, capsys
):
    config = _config(tmp_path, special={9: "[[hang]]"}, run={"dir": str(tmp_path / "run")})
    assert reason(config, ["run.stall_s=2", "run.max_attempts=1", "run.shard_rows=1"]) == 3
    assert "it hung: no report for 2 s (run.stall_s)" in capsys.readouterr().err
    rows = stable_rows(tmp_path / "run")
    failed = [row["request_id"] for row in rows if row["error_type"] == "QuarantinedError"]
    assert "p9" in failed
    good = [row for row in rows if row["request_id"] not in failed]
    assert good == [row for row in undisturbed if row["request_id"] not in failed]


def test_a_workers_sigterm_is_a_notice_to_store_its_rows(cluster, undisturbed, tmp_path, capsys):
    config = _config(
        tmp_path,
        model={"name": "fake:step_s=0.02"},
        run={"dir": str(tmp_path / "run"), "shard_rows": 10, "checkpoint_s": 0.1},
    )
    told = _signal_a_worker_once(tmp_path / "run" / "checkpoints", signal.SIGTERM)
    assert reason(config, []) == 0
    assert told.wait() == 0
    assert "stored its rows and left: its machine goes away" in capsys.readouterr().err
    assert stable_rows(tmp_path / "run") == undisturbed
    attempts = {
        r["attempt"] for b in RunDir(str(tmp_path / "run")).read_rows() for r in b.to_pylist()
    }
    assert attempts == {1}


def test_a_run_at_its_cost_cap_ends_with_4_and_goes_on_when_it_is_raised(
    cluster, undisturbed, tmp_path, capsys
):
    config = _config(
        tmp_path,
        model={"name": "fake:step_s=0.02"},
        run={"dir": str(tmp_path / "run"), "shard_rows": 5, "max_cost_usd": 1.0},
        cost={"usd_per_gpu_hour": 3600.0},
    )
    assert reason(config, []) == 4
    assert "rows at run.max_cost_usd (1), with $" in capsys.readouterr().err
    kept = {path.name for path in (tmp_path / "run" / "rows").iterdir()}
    assert reason(config, ["run.max_cost_usd=0.5"]) == 4
    assert "nothing was started: the run is at run.max_cost_usd (0.5)" in capsys.readouterr().err
    assert {path.name for path in (tmp_path / "run" / "rows").iterdir()} == kept
    assert reason(config, ["run.max_cost_usd=100", "model.name=fake"]) == 0
    assert stable_rows(tmp_path / "run") == undisturbed


def test_what_a_worker_refuses_is_one_clear_line(cluster, tmp_path, capsys, monkeypatch):
    """A setting that shows itself wrong only where the engine loads, as a GPU that is too small."""
    from dynts_batch.runner import prepared_run

    monkeypatch.setattr(
        prepared_run,
        "check_engine",
        lambda config, on_gpu: FakeModel(config.model, {"name": "unchecked"}),
    )
    config = _config(tmp_path)
    assert reason(config, ["model.name=fake:step_s=slow"]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        "error: model.name: step_s must be a number of seconds, got 'slow'"
    )


def test_what_a_worker_warns_of_reaches_the_terminal(cluster, tmp_path, capsys):
    config = _config(tmp_path, special={3: "[[oom:2]]"})
    assert reason(config, ["memory.max_seqs=8"]) == 0
    out, err = capsys.readouterr()
    assert re.search(r"worker \S+ warns: out of memory with \d sequences: ", err)
    assert "workers warned: out of memory with" in err.splitlines()[-1]
    assert re.search(r"worker \S+ ran out of memory and goes on with 2 sequences at once", err)
    assert re.search(r"arena shrunk to +2 ", out)


def test_workers_that_do_not_fit_this_machine_are_refused(cluster, tmp_path, capsys):
    config = _config(tmp_path, workers={"min": 1, "max": 2, "num_cpus": 1000})
    assert reason(config, []) == 2
    assert "workers.min must fit this machine, got 1 x 1000 CPU" in capsys.readouterr().err
    assert reason(config, ["workers.num_cpus=0.1", "workers.num_gpus=1"]) == 2
    assert "workers.num_gpus=0 runs on CPUs" in capsys.readouterr().err


def test_the_rows_of_a_model_are_what_its_engine_says_without_ray(
    cluster, tmp_path, tiny_model_dirs
):
    config_path = _config(
        tmp_path,
        num_rows=6,
        model={"name": str(tiny_model_dirs["qwen3"])},
        policy={"name": "window", "budget": 48, "window_size": 8},
        sampling={"max_new_tokens": 24, "temperature": 1.0},
    )
    assert reason(config_path, []) == 0
    rows = {row["request_id"]: row for row in stable_rows(tmp_path / "run")}

    config = load_config(config_path)
    engine = Engine.load(config.model, config.policy, config.sampling, config.memory)
    requests = [Request(id_, prompt=row["question"]) for id_, row in rows.items()]
    completions = {c.request_id: c for c in engine.generate(requests)}
    assert len(completions) == 6
    for id_, completion in completions.items():
        assert completion.finish_reason != "error", completion.error_message
        names = ("prompt", "reasoning", "answer", "completion_tokens", "evicted_tokens")
        for name in names:
            assert rows[id_][name] == getattr(completion, name), (id_, name)
