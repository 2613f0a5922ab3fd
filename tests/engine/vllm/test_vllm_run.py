"""Whole runs by the real vLLM under real Ray, whose workers and drivers are killed, stopped,
hung and poisoned.

Every row is compared with the arena engine's.
"""

import signal
from importlib.util import find_spec
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from job_process import REPOSITORY, JobProcess, assert_every_row_once, rows_of
from ray.cluster_utils import Cluster

from dynts_batch.lab.problems import problem_set

NUM_ROWS = 30
STABLE = ("answer", "completion_token_ids", "finish_reason", "error_type")

pytestmark = [
    pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed"),
    pytest.mark.timeout(900),
    pytest.mark.ray,
]

#: A plugin that vLLM loads into each of its processes: a prompt in which a token stands eight times
#: in a row ends the engine's core.
POISON = """
def register():
    from vllm.v1.engine.llm_engine import LLMEngine

    add_request, step = LLMEngine.add_request, LLMEngine.step
    LLMEngine.is_poisoned = False

    def poisoned_add(self, request_id, prompt, *args, **kwargs):
        ids = prompt["prompt_token_ids"]
        self.is_poisoned |= any(len(set(ids[i : i + 8])) == 1 for i in range(len(ids) - 7))
        return add_request(self, request_id, prompt, *args, **kwargs)

    def poisoned_step(self):
        if self.is_poisoned:
            raise RuntimeError("the engine core died")
        return step(self)

    LLMEngine.add_request, LLMEngine.step = poisoned_add, poisoned_step
"""


@pytest.fixture(scope="module")
def problems(tmp_path_factory) -> Path:
    """One has a token ten times in a row."""
    found = [
        {"id": f"p{n:02d}", "question": p.question} for n, p in enumerate(problem_set(5, NUM_ROWS))
    ]
    found[10]["question"] += " x" * 10
    path = tmp_path_factory.mktemp("problems") / "problems.parquet"
    pq.write_table(pa.Table.from_pylist(found), path)
    return path


def start(problems: Path, run_dir: Path, *, environment=None, **settings) -> JobProcess:
    given = {
        "input.path": problems,
        "input.id_column": "id",
        "input.reference_column": "null",
        "sampling.max_new_tokens": 250,
        "policy.name": "full",
        "policy.budget": "null",
        "memory.max_prompt_tokens": 300,
        "run.dir": run_dir,
        "run.shard_rows": 5,
        "run.checkpoint_s": 0.5,
        "run.trace_rows": 0,
        "workers.max": 1,
    }
    return JobProcess(REPOSITORY / "configs" / "quickstart.yaml", given | settings, environment)


def start_vllm(problems: Path, run_dir: Path, *, environment=None, **settings) -> JobProcess:
    given = {"engine.kind": "vllm", "memory.kv_gib": 0.02, "memory.max_seqs": 4}
    return start(problems, run_dir, environment=environment, **(given | settings))


@pytest.fixture(scope="module")
def by_arena(problems, tmp_path_factory) -> list[dict]:
    run_dir = tmp_path_factory.mktemp("arena") / "run"
    start(problems, run_dir).finish()
    return rows_of(run_dir, *STABLE)


def test_every_row_comes_once_whoever_is_killed_and_is_that_of_the_arena(
    problems, by_arena, tmp_path
):
    job = start_vllm(problems, tmp_path / "run")
    job.wait_for_shards(1)
    killed = job.signal_worker(signal.SIGKILL)
    job.wait_for(lambda: not killed.is_running())
    job.wait_for_shards(job.num_shards + 1)
    job.kill()
    job.assert_nothing_is_left()
    assert job.num_shards < NUM_ROWS // 5, "it was to be killed before its end"
    job = start_vllm(problems, tmp_path / "run")
    job.finish()
    job.assert_nothing_is_left()
    rows = rows_of(tmp_path / "run", "worker_id")
    assert_every_row_once(rows, NUM_ROWS)
    # Rows of the worker that was killed, of its successor, and of that of the second driver.
    assert len({row["worker_id"] for row in rows}) == 3
    assert rows_of(tmp_path / "run", *STABLE) == by_arena


def test_a_worker_that_is_told_to_go_stores_its_rows_and_one_that_hangs_is_replaced(
    problems, by_arena, tmp_path
):
    job = start_vllm(problems, tmp_path / "run", **{"run.stall_s": 20, "run.max_attempts": 5})
    job.wait_for_shards(1)
    first = job.signal_worker(signal.SIGTERM)
    job.wait_for(lambda: not first.is_running())
    stored = rows_of(tmp_path / "run")
    job.wait_for_shards(job.num_shards + 1)
    hung = job.signal_worker(signal.SIGSTOP)
    text = job.finish()
    assert "it hung: no report for 20 s (run.stall_s)" in text
    assert text.count("died and is replaced") == 1, "only the one that hung has died"
    assert not hung.is_running()
    job.assert_nothing_is_left()
    assert stored
    assert rows_of(tmp_path / "run", *STABLE) == by_arena


def test_a_request_that_ends_the_engine_becomes_an_error_row_and_costs_no_other(
    problems, by_arena, tmp_path
):
    (tmp_path / "poison.py").write_text(POISON)
    (tmp_path / "poison-0.dist-info").mkdir()
    (tmp_path / "poison-0.dist-info" / "METADATA").write_text("Name: poison\nVersion: 0\n")
    (tmp_path / "poison-0.dist-info" / "entry_points.txt").write_text(
        "[vllm.general_plugins]\npoison = poison:register\n"
    )
    environment = {"PYTHONPATH": f"{REPOSITORY}:{tmp_path}"}
    job = start_vllm(problems, tmp_path / "run", environment=environment, **{"run.max_attempts": 2})
    text = job.finish(expected_status=3)
    assert "the engine core died" in text
    rows = rows_of(tmp_path / "run", *STABLE)
    assert [row["request_id"] for row in rows if row["error_type"]] == ["p10"]
    for row, expected in zip(rows, by_arena, strict=True):
        assert row["error_type"] or row == expected
    job.assert_nothing_is_left()


@pytest.fixture
def two_gpus(monkeypatch):
    """A node that says it has two GPUs; vLLM's build for CPUs runs a rank
    on a core in place of each."""
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "0|1")
    monkeypatch.setenv("RAY_worker_niceness", "0")
    cluster = Cluster()
    try:
        yield cluster.add_node(num_cpus=2, num_gpus=2).address
    finally:
        cluster.shutdown()


def ranks() -> list[psutil.Process]:
    return [p for p in psutil.process_iter() if "VLLM::Worker" in p.name()]


def test_a_model_on_two_ranks_survives_the_death_of_one_and_costs_both(
    two_gpus, problems, by_arena, tmp_path
):
    job = start_vllm(
        problems,
        tmp_path / "run",
        environment={"RAY_ADDRESS": two_gpus},
        **{"workers.num_gpus": 2, "workers.num_cpus": 2, "cost.usd_per_gpu_hour": 3600},
    )
    job.wait_for_shards(1)
    found = ranks()
    assert len(found) == 2
    found[1].kill()
    text = job.finish()
    assert "2 CPU and 2 GPU on a Ray cluster" in text
    assert text.count("died and is replaced") == 1, text
    psutil.wait_procs(ranks(), timeout=60)
    assert not ranks()
    columns = ("device_s", "prefill_s", "decode_s", "queue_s", "cost_usd", "peak_kv_bytes")
    rows = rows_of(tmp_path / "run", *STABLE, *columns)
    assert_every_row_once(rows, NUM_ROWS)
    same = [
        r["completion_token_ids"] == e["completion_token_ids"]
        for r, e in zip(rows, by_arena, strict=True)
    ]
    assert sum(same) >= 0.9 * NUM_ROWS  # sums of two halves are rounded otherwise
    assert all(row["cost_usd"] == pytest.approx(row["device_s"]) for row in rows)
