"""A run on a real three-node Ray cluster (one raylet a node) in which
anything may be killed at any moment."""

import contextlib
import dataclasses
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from fake_run import stable_rows
from ray.cluster_utils import Cluster

REPOSITORY = Path(__file__).parents[2]
NUM_NODES = 3
_CPUS_PER_NODE = 1


_FULL_DISK = """
import sys

def refuse(event, args):
    if event == "open" and args[0] == {path!r}:
        raise OSError(28, "No space left on device")

sys.addaudithook(refuse)
"""


@dataclasses.dataclass
class Outcome:
    """What happened to one run."""

    kills: Counter
    num_workers_killed: int
    num_admitted: int
    """Requests that engines began, those that were begun again included."""
    rows: list
    seconds: float


class Nodes:
    """The cluster: a head without room for workers, and nodes that may die. A context manager."""

    def __init__(self, num_nodes: int = NUM_NODES, *, head_timeout_s: int | None = None) -> None:
        """`head_timeout_s`: how long nodes and drivers wait for a lost head;
        None is Ray's minute."""
        self._num_nodes, self._head_timeout_s = num_nodes, head_timeout_s

    def __enter__(self):
        # Else the workers yield to whatever else runs on this machine.
        self._environment = pytest.MonkeyPatch()
        self._environment.setenv("RAY_worker_niceness", "0")
        if self._head_timeout_s is not None:
            name = "RAY_gcs_rpc_server_reconnect_timeout_s"
            self._environment.setenv(name, str(self._head_timeout_s))
        self._cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        self._nodes = [self._add() for _ in range(self._num_nodes)]
        return self

    def __exit__(self, *exc_info):
        self._cluster.shutdown()
        self._environment.undo()

    @property
    def address(self) -> str:
        return self._cluster.address

    def _add(self, **environment: str):
        for _ in range(5):
            with contextlib.suppress(
                Exception
            ):  # Ray gives a node 30 s: too little on a busy machine
                return self._cluster.add_node(
                    num_cpus=_CPUS_PER_NODE, wait=False, env_vars=environment
                )
        raise AssertionError("no node starts on this machine")

    def add_bad_one(self, folder: Path, path: Path) -> str:
        """Start a node whose disk is full for `path`, and that is good for all else; its id.
        `folder` is new."""
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(_FULL_DISK.format(path=str(path)))
        python_path = f"{folder}:{os.environ.get('PYTHONPATH', '')}"
        return self._add(PYTHONPATH=python_path).node_id

    def kill_one(self, dice: random.Random) -> int:
        """Kill a raylet with all its workers, and start another node; how many workers died."""
        node = self._nodes.pop(dice.randrange(len(self._nodes)))
        (raylet,) = [process for name, process in _processes(node) if name == "raylet"]
        num_workers = len(workers(raylet))
        self._cluster.remove_node(node, allow_graceful=False)
        self._nodes.append(self._add())
        return num_workers

    def kill_head(self) -> None:
        """Kill the node with Ray's own books (the GCS): that is the end of this cluster."""
        self._cluster.remove_node(self._cluster.head_node, allow_graceful=False)


def _processes(node):
    for name, infos in node.all_processes.items():
        for info in infos:
            yield name, psutil.Process(info.process.pid)


def workers(parent: psutil.Process | None = None) -> list[psutil.Process]:
    """The processes of this test's Ray workers below `parent`."""
    found = []
    for child in (parent or psutil.Process()).children(recursive=True):
        try:
            command = child.cmdline()
        except psutil.Error:
            continue
        if command and command[0].startswith("ray::WorkerActor"):
            found.append(child)
    return found


class Driver:
    """jobs/reason.py in a process of its own, started again each time it is killed."""

    def __init__(self, config: str, address: str, *overrides: str) -> None:
        self._arguments, self._address = [config, *overrides], address
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(REPOSITORY / "jobs" / "reason.py"), *self._arguments],
            env={**os.environ, "RAY_ADDRESS": self._address, "PYTHONPATH": str(REPOSITORY)},
            cwd="/",
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def kill(self) -> int:
        """How many workers die with it."""
        num_workers = len(workers())
        self.process.kill()
        self.process.communicate()
        self.start()
        return num_workers


def run_in_chaos(
    nodes: Nodes,
    config: str,
    run_dir: str,
    log: Path,
    *,
    targets: list[str],
    dice: random.Random,
    pause_s: tuple[float, float],
) -> Outcome:
    """Run `config`, killing one of `targets` after another as long as it is not finished."""
    began_s = time.monotonic()
    kills: Counter = Counter()
    num_workers_killed = 0
    driver = Driver(config, nodes.address)
    for target in targets:
        wait_until(lambda: workers() or driver.process.poll() is not None)
        try:
            driver.process.wait(timeout=dice.uniform(*pause_s))
            break  # it is done already
        except subprocess.TimeoutExpired:
            pass
        if target == "driver":
            num_workers_killed += driver.kill()
        elif target == "node":
            num_workers_killed += nodes.kill_one(dice)
        else:
            found = workers()
            if not found:
                continue
            dice.choice(found).send_signal(signal.SIGKILL)
            num_workers_killed += 1
        kills[target] += 1
    _, errors = driver.process.communicate(timeout=240)
    assert driver.process.returncode == 0, errors
    admitted = log.read_text().splitlines()
    seconds = time.monotonic() - began_s
    return Outcome(kills, num_workers_killed, len(admitted), stable_rows(run_dir), seconds)


def wait_until(condition: Callable[[], object], timeout_s: float = 120.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "it did not come"
        time.sleep(0.1)
