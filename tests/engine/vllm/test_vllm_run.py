"""A whole run by the real vLLM under real Ray, whose worker and driver are killed."""

import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import psutil
import pyarrow.dataset as ds
import pytest

REPOSITORY = Path(__file__).parents[3]
NUM_ROWS = 40

pytestmark = [
    pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed"),
    pytest.mark.timeout(900),
]


def start(run_dir: Path, *overrides: str) -> subprocess.Popen:
    quickstart = REPOSITORY / "configs" / "quickstart.yaml"
    settings = {
        "input.limit": NUM_ROWS,
        "policy.name": "full",
        "policy.budget": "null",
        "memory.max_prompt_tokens": 300,
        "run.dir": run_dir,
        "run.shard_rows": 5,
        "run.checkpoint_s": 0.5,
        "run.trace_rows": 0,
        "workers.max": 1,
    }
    command = [sys.executable, str(REPOSITORY / "jobs" / "reason.py"), str(quickstart)]
    command += [f"{key}={value}" for key, value in settings.items()] + list(overrides)
    return subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen) -> None:
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors


def num_shards(run_dir: Path) -> int:
    return len(list(run_dir.glob("rows/*.parquet")))


def wait_for(condition, timeout_s: float = 300.0):
    deadline_s = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline_s, "it did not come"
        time.sleep(0.05)
    return found


def ray_workers(process: subprocess.Popen) -> list[psutil.Process]:
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            if child.cmdline()[:1] and child.cmdline()[0].startswith("ray::WorkerActor"):
                found.append(child)
        except psutil.Error:
            continue
    return found


def rows_of(run_dir: Path) -> list[dict]:
    columns = ["request_id", "sample_index", "answer", "correct", "completion_token_ids"]
    table = ds.dataset(run_dir / "rows", format="parquet").to_table(columns)
    return sorted(table.to_pylist(), key=lambda row: row["request_id"])


def test_every_row_comes_once_whoever_is_killed_and_is_that_of_the_arena(tmp_path):
    by_vllm = ["engine.kind=vllm", "memory.kv_gib=0.02", "memory.max_seqs=4"]
    run_dir, expected_dir = tmp_path / "vllm", tmp_path / "arena"
    finish(start(expected_dir))
    process = start(run_dir, *by_vllm)
    wait_for(lambda: num_shards(run_dir) >= 1)
    (worker,) = ray_workers(process)
    worker.send_signal(signal.SIGKILL)
    seen = num_shards(run_dir)
    wait_for(lambda: num_shards(run_dir) > seen)
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.communicate()
    assert num_shards(run_dir) < NUM_ROWS // 5, "it was to be killed before its end"
    wait_for(lambda: not any(c.is_running() and "WorkerActor" in c.name() for c in children), 60)
    finish(start(run_dir, *by_vllm))
    rows = rows_of(run_dir)
    assert len({(row["request_id"], row["sample_index"]) for row in rows}) == len(rows) == NUM_ROWS
    assert rows == rows_of(expected_dir)
