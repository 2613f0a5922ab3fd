"""The Ray cluster of a run: the one that is given, else one started on this machine for the run.

Owns how Ray is started, what it prints (nothing), how this package reaches the nodes, and how many
workers fit.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import torch

import dynts_batch
from dynts_batch.config import Config
from dynts_batch.errors import ConfigError, DyntsError
from dynts_batch.report.units import counted

# Rows travel through the object store only while a worker fetches them.
_LOCAL_OBJECT_STORE_BYTES = 512 * 2**20
_ANSWER_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Resources:
    """What each worker asks Ray for, and how many workers there shall be."""

    num_cpus: float
    num_gpus: float
    num_workers: int

    def told(self, num_workers: int) -> str:
        """In words, for so many of the workers."""
        size = _named({"CPU": self.num_cpus, "GPU": self.num_gpus})
        return f"{counted(num_workers, 'worker')} of {size}"


@contextmanager
def open_cluster(address: str | None) -> Iterator[None]:
    """Connect to the cluster at `address`, or start a local one; on exit, leave or stop it.

    A process that has called `ray.init` itself keeps its connection.

    Raises: DyntsError if a given cluster cannot be reached or is another release of Ray,
    or none starts here.
    """
    if ray.is_initialized():
        yield
        return
    # Its own lines ("Connecting to existing Ray cluster...") are not the user's concern.
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if address is not None:
            _check_answer(address)
            ray.init(address, runtime_env=_runtime_env(), **quiet)
        else:
            ray.init(
                "local",
                include_dashboard=False,
                object_store_memory=_LOCAL_OBJECT_STORE_BYTES,
                **quiet,
            )
    except Exception as error:  # noqa: BLE001  Ray raises whatever comes, a bare Exception too
        where = "cannot start Ray here" if address is None else f"cannot use Ray at {address}"
        raise DyntsError(f"{where}: {_in_one_line(error)}") from None
    try:
        yield
    finally:
        ray.shutdown()


def plan_resources(config: Config, *, is_local: bool) -> Resources:
    """How many workers of what size the run asks the cluster for, see `resources_on`."""
    return resources_on(ray.cluster_resources(), config, is_local=is_local)


def resources_on(total: Mapping[str, float], config: Config, *, is_local: bool) -> Resources:
    """How many workers of what size the run asks a cluster for that has `total` now.

    A given cluster is asked for `workers.max`, because it may grow; this machine for what fits.

    Raises: ConfigError if `workers.min` do not fit this machine, or a cluster that starts from
    nothing is to decide whether they get GPUs.
    """
    workers = config.workers
    num_gpus = _num_gpus(total, config)
    num_cpus = _num_cpus(total, config, is_local=is_local)
    if not is_local:
        return Resources(num_cpus, num_gpus, workers.max)
    wanted = {"CPU": num_cpus, "GPU": num_gpus}
    fitting = min([int(total.get(r, 0) / n) for r, n in wanted.items() if n > 0] or [workers.max])
    if fitting < workers.min:
        no_gpu = num_gpus and not total.get("GPU")
        raise ConfigError(
            f"workers.min must fit this machine, got {workers.min} x {_named(wanted)}; it has"
            f" {_named({resource: total.get(resource, 0.0) for resource in wanted})}"
            + ("; workers.num_gpus=0 runs on CPUs" if no_gpu else "")
        )
    return Resources(num_cpus, num_gpus, min(workers.max, fitting))


def check_fits_here(config: Config) -> None:
    """Check what can be known before Ray is started on this machine. Ray may find fewer CPUs, those
    of a container.

    Raises: ConfigError as `resources_on`.
    """
    resources_on(_total_here(), config, is_local=True)


def cpus_of_worker(config: Config, *, is_local: bool) -> float:
    """CPUs that each worker of the run will ask for, known before Ray is started."""
    return _num_cpus(_total_here(), config, is_local=is_local)


def _total_here() -> Mapping[str, float]:
    if ray.is_initialized():
        return ray.cluster_resources()
    return {"CPU": float(os.cpu_count() or 1), "GPU": float(torch.cuda.device_count())}


def _num_cpus(total: Mapping[str, float], config: Config, *, is_local: bool) -> float:
    """Of a worker: as configured; else one, or its share of this machine's cores if there is no
    GPU."""
    workers = config.workers
    if workers.num_cpus is not None:
        return workers.num_cpus
    if not is_local or _num_gpus(total, config):
        return 1.0
    # torch's own number of threads: two on a core would slow each other down.
    cores = min(torch.get_num_threads(), int(total.get("CPU", 0)))
    return float(max(1, cores // workers.max))


def _num_gpus(total: Mapping[str, float], config: Config) -> float:
    """Of a worker: as configured; else one where the model is to be on a GPU,
    or may be and the cluster has some."""
    workers, device = config.workers, config.model.device
    if workers.num_gpus is not None:
        return workers.num_gpus
    if device == "cpu":
        return 0.0
    if device == "cuda" or total.get("GPU", 0) > 0:
        return 1.0
    if not total.get("CPU", 0):  # the nodes that are to come are unknown, and asked for by this
        raise ConfigError(
            "workers.num_gpus must be set on a cluster that has no node for workers yet: 1 where"
            " nodes with GPUs are to join, 0 where the model is to run on CPUs, got null"
        )
    return 0.0


def describe_resources() -> str:
    """What the cluster has, in words."""
    total = ray.cluster_resources()
    return _named({resource: total.get(resource, 0.0) for resource in ("CPU", "GPU")})


def _check_answer(address: str) -> None:
    """Ray itself tries for many minutes to reach an address that nobody answers at.

    Raises: OSError.
    """
    host, _, port = address.rpartition("://")[2].partition("/")[0].rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), _ANSWER_TIMEOUT_S).close()


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def _runtime_env() -> dict[str, Any]:
    """What the nodes need beyond their own installation: this package, unless they have it.

    A package in site-packages is taken for a part of the nodes' image. One that is imported from a
    checkout, or an editable installation, is sent along: the workers run the driver's code. It is
    not sent if `ray job submit` already says what to send.
    """
    package = Path(dynts_batch.__file__).parent
    submitted = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}"))
    sent = (submitted.get("runtime_env") or {}).keys() & {"working_dir", "py_modules"}
    if sent or package.is_relative_to(sysconfig.get_path("purelib")):
        return {}
    return {"py_modules": [str(package)]}


def _named(amounts: dict[str, float]) -> str:
    return " and ".join(f"{amount:g} {name}" for name, amount in amounts.items())
