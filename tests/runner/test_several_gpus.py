"""Laws of a model on several GPUs, on a node that says it has two:
they are asked for together, and paid for together."""

import json
from pathlib import Path

import pytest
from fake_run import write_config, write_problems
from job_process import JobProcess, assert_every_row_once, rows_of
from ray.cluster_utils import Cluster

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def address():
    cluster = Cluster()
    try:
        yield cluster.add_node(num_cpus=2, num_gpus=2).address
    finally:
        cluster.shutdown()


def run(folder: Path, address: str, num_gpus: int) -> tuple[str, list[dict], dict]:
    """What it printed, its rows, and its manifest."""
    folder.mkdir()
    config = write_config(
        folder,
        write_problems(folder / "problems.jsonl", 10),
        model={"name": "fake:step_s=0.1,simulated=true"},
        engine={"kind": "vllm"},
        cost={"usd_per_gpu_hour": 3600.0},
    )
    settings = {"run.dir": folder / "run", "workers.num_gpus": num_gpus, "workers.max": 1}
    text = JobProcess(config, settings, {"RAY_ADDRESS": address}).finish()
    rows = rows_of(folder / "run", "device_s", "cost_usd", "completion_tokens")
    return text, rows, json.loads((folder / "run" / "manifest.json").read_text())


@pytest.mark.long
def test_a_worker_on_two_gpus_holds_both_and_its_rows_cost_twice_as_much(address, tmp_path):
    found = {n: run(tmp_path / str(n), address, n) for n in (1, 2)}
    for num_gpus, (text, rows, _) in found.items():
        assert (
            f"1 worker of 0.25 CPU and {num_gpus} GPU on a Ray cluster of 2 CPU and 2 GPU" in text
        )
        assert_every_row_once(rows, 10)
    (_, on_one, _), (_, on_two, _) = found.values()
    assert [row["completion_tokens"] for row in on_one] == [r["completion_tokens"] for r in on_two]
    for one, two in zip(on_one, on_two, strict=True):
        assert two["device_s"] == pytest.approx(2 * one["device_s"])
        assert two["cost_usd"] == pytest.approx(2 * one["cost_usd"])
