"""Is this cluster fit for a run? `python cluster/preflight.py RUN_DIR [--num-gpus N]`, on any node.

Asks every node for its GPUs, its GPU driver and its package versions. Each node also reads from the
run directory what this machine wrote, and writes there itself. Exit status: 0 fit, 1 not fit, with
the reasons, 2 unusable arguments.
"""

import argparse
import os
import platform
import sys
import uuid
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from rich.console import Console
from rich.table import Table

from dynts_batch.data.files.storage import Storage
from dynts_batch.errors import RunDirError
from dynts_batch.exit_status import EXIT_BROKEN, EXIT_OK, exit_status_of
from dynts_batch.runner.cluster import open_cluster

_PACKAGES = ("ray", "torch", "transformers", "tokenizers", "pyarrow", "safetensors")


def look_around(run_dir: str, probe: str) -> dict[str, Any]:
    """What one node has and sees. `probe` is a file that another machine wrote there."""
    found: dict[str, Any] = {"host": platform.node(), "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "missing"
    found |= _gpus()
    storage = Storage(run_dir)
    try:
        content = storage.read(probe)
        storage.write(f"{probe}-{uuid.uuid4().hex}", b"seen")
        found["sees_run_dir"] = "yes" if content == b"probe" else "no: it is another folder"
    except RunDirError as error:
        found["sees_run_dir"] = f"no: {error}"
    return found


def _gpus() -> dict[str, Any]:
    import pynvml

    try:
        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        names = [pynvml.nvmlDeviceGetName(handle) for handle in handles]
        return {"driver": pynvml.nvmlSystemGetDriverVersion(), "gpus": names}
    except pynvml.NVMLError:
        return {"driver": None, "gpus": []}


def problems(nodes: list[dict[str, Any]], *, num_gpus: int | None) -> list[str]:
    """Why a run would fail or be wrong on these nodes."""
    found = []
    for key in ("python", *_PACKAGES):
        versions = {node[key] for node in nodes}
        if len(versions) > 1 or "missing" in versions:
            found.append(f"{key} must be the same on all nodes, got {', '.join(sorted(versions))}")
    for node in nodes:
        if node["sees_run_dir"] != "yes":
            found.append(f"{node['host']} does not see the run directory: {node['sees_run_dir']}")
        if node["ray_gpus"] > len(node["gpus"]):
            found.append(
                f"{node['host']} offers {node['ray_gpus']:g} GPUs to Ray, and its driver sees"
                f" {len(node['gpus'])}"
            )
    total = sum(node["ray_gpus"] for node in nodes)
    if num_gpus is not None and total < num_gpus:
        found.append(f"the cluster must have {num_gpus} GPUs, got {total:g}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run_dir", metavar="RUN_DIR", help="folder or URI, as in run.dir")
    parser.add_argument("--num-gpus", type=int, help="how many the cluster must have")
    args = parser.parse_args()
    run_dir = args.run_dir
    if "://" not in run_dir:
        run_dir = os.path.abspath(run_dir)
    probe = f"preflight-{uuid.uuid4().hex}"
    storage = Storage(run_dir)
    is_new = not storage.list()
    storage.create()
    storage.write(probe, b"probe")
    try:
        with open_cluster(os.environ.get("RAY_ADDRESS")):
            nodes = _ask_nodes(run_dir, probe)
    finally:
        for info in storage.list():
            if info.base_name.startswith(probe):
                storage.delete(info.base_name)
        if is_new:
            storage.delete_temp_files()
    _show(nodes)
    found = problems(nodes, num_gpus=args.num_gpus)
    for problem in found:
        print(f"not fit: {problem}")
    return EXIT_BROKEN if found else EXIT_OK


def _ask_nodes(run_dir: str, probe: str) -> list[dict[str, Any]]:
    task = ray.remote(num_cpus=0)(look_around)
    alive = [node for node in ray.nodes() if node["Alive"]]
    calls = [
        task.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote(run_dir, probe)
        for node in alive
    ]
    answers = ray.get(calls)
    return [
        answer | {"ray_gpus": node["Resources"].get("GPU", 0.0)}
        for node, answer in zip(alive, answers, strict=True)
    ]


def _show(nodes: list[dict[str, Any]]) -> None:
    keys = ("host", "ray_gpus", "gpus", "driver", "python", "ray", "torch", "sees_run_dir")
    table = Table(*keys)
    for node in nodes:
        table.add_row(*(str(node[key]) for key in keys))
    Console().print(table)


if __name__ == "__main__":
    sys.exit(exit_status_of(main))
