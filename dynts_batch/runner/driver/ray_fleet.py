"""The workers of a run as Ray actors: starting them, talking to them, noticing that one died.

Each worker has one call under way (two while it is asked to close), and a call that fails is how a
death is noticed. The fleet knows nothing about what the calls are for.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from dynts_batch.engine.out_of_memory import is_out_of_memory
from dynts_batch.errors import DyntsError
from dynts_batch.runner.cluster import Resources
from dynts_batch.runner.messages import (
    Assignment,
    Died,
    Event,
    Failed,
    Job,
    Left,
    Loaded,
    Orders,
    Placed,
    Report,
    Reported,
    WorkerInfo,
)
from dynts_batch.runner.worker.metrics import WorkerMetrics
from dynts_batch.runner.worker.worker import Worker
from dynts_batch.telemetry import setup_logging

_MAX_REASON_CHARS = 300


class WorkerActor:
    """A Worker in a process of its own. Loading is a call, so that its error reaches the driver."""

    def node_id(self) -> str:
        return ray.get_runtime_context().get_node_id()

    def load(self, worker_id: str, job: Job, max_seqs: int | None) -> WorkerInfo:
        setup_logging(worker_id=worker_id)
        # A node without that folder has no use for relative paths: the path is named when it fails.
        with contextlib.suppress(FileNotFoundError):
            os.chdir(job.working_dir)
        self._worker = Worker(worker_id, job, max_seqs=max_seqs)
        # The notice that a spot machine is taken away, or that its node is drained.
        signal.signal(signal.SIGTERM, lambda number, frame: self._worker.leave())
        self._metrics = WorkerMetrics(worker_id, self._worker.info.node)
        return self._worker.info

    def work(
        self, assignments: Sequence[Assignment], orders: Orders, *, device_share: float
    ) -> Report:
        report = self._worker.work(assignments, orders, device_share=device_share)
        self._metrics.record(report)
        return report

    def close(self) -> Report:
        return self._worker.close()


@dataclass(frozen=True, slots=True)
class _Call:
    worker_id: str
    is_last: bool
    late_s: float
    """When, on the monotonic clock, its worker is taken for hung."""


class RayFleet:
    """See fleet.Fleet."""

    def __init__(self, job: Job, resources: Resources) -> None:
        # max_restarts stays 0: the driver replaces what died, since it has the books.
        self._actor_class = ray.remote(num_cpus=resources.num_cpus, num_gpus=resources.num_gpus)(
            WorkerActor
        )
        self._needs = {"CPU": resources.num_cpus, "GPU": resources.num_gpus}
        self._job = ray.put(job)
        # Names are unique across the starts of a run: telemetry files are named after them.
        self._session = uuid.uuid4().hex[:6]
        self._num_started = 0
        self._actors: dict[str, Any] = {}
        self._places: dict[str, Any] = {}
        """What each says of its node, as soon as it runs there."""
        self._loading: dict[str, int | None] = {}
        """The arena's bound of those that are not ready yet."""
        self._avoided: frozenset[str] = frozenset()
        self._may_wait = True
        self._infos: dict[str, WorkerInfo] = {}
        self._calls: dict[Any, _Call] = {}
        self._stall_s = job.config.run.stall_s

    def start(self, *, max_seqs: int | None = None) -> str:
        worker_id = f"{self._session}-{self._num_started:03d}"
        self._num_started += 1
        self._place(worker_id, max_seqs)
        return worker_id

    def _place(self, worker_id: str, max_seqs: int | None) -> None:
        actor_class = self._actor_class
        if self._avoided:
            others = f"!in({','.join(sorted(self._avoided))})"
            anywhere: list[Any] | None = None if self._may_wait else [{"label_selector": {}}]
            actor_class = actor_class.options(
                label_selector={"ray.io/node-id": others}, fallback_strategy=anywhere
            )
        self._loading[worker_id] = max_seqs
        actor = self._actors[worker_id] = actor_class.remote()
        place = self._places[worker_id] = actor.node_id.remote()
        # It may wait for a node, or for a download: only what is loaded can stall.
        call = actor.load.remote(worker_id, self._job, max_seqs)
        self._call(worker_id, place, may_stall=False)
        self._call(worker_id, call, may_stall=False)

    def nodes(self) -> dict[str, str]:
        return {
            node["NodeID"]: f"{node['NodeManagerHostname']} ({node['NodeID'][:8]})"
            for node in ray.nodes()
            if node["Alive"]
            and all(node["Resources"].get(r, 0) >= n for r, n in self._needs.items())
        }

    def avoid(self, nodes: frozenset[str], *, may_wait: bool) -> None:
        if nodes == self._avoided and (may_wait == self._may_wait or not nodes):
            return
        self._avoided, self._may_wait = nodes, may_wait
        for worker_id, max_seqs in list(self._loading.items()):
            if self._node_of(worker_id) is None:
                self._kill(worker_id)
                self._place(worker_id, max_seqs)

    def _node_of(self, worker_id: str) -> str | None:
        """None as long as it does not run."""
        place = self._places[worker_id]
        if not ray.wait([place], timeout=0)[0]:
            return None
        try:
            return ray.get(place)
        except RayError:
            return None

    def send(self, worker_id: str, assignments: Sequence[Assignment], orders: Orders) -> None:
        call = self._actors[worker_id].work.remote(
            assignments, orders, device_share=self._device_share(worker_id)
        )
        self._call(worker_id, call)

    def retire(self, worker_id: str) -> None:
        self._call(worker_id, self._actors[worker_id].close.remote(), is_last=True)

    def cancel_loading(self) -> None:
        for worker_id in list(self._loading):
            self._kill(worker_id)

    def wait(self, timeout_s: float) -> list[Event]:
        if not self._calls:
            time.sleep(timeout_s)
            return []
        done, _ = ray.wait(list(self._calls), num_returns=1, timeout=timeout_s)
        if done:  # and whatever else is there by now
            done, _ = ray.wait(list(self._calls), num_returns=len(self._calls), timeout=0)
        # Of two calls to a worker that died while it was asked to close, one tells it.
        events = [self._event(call) for call in done if call in self._calls]
        return events + self._end_stalled()

    def close(self) -> None:
        self.cancel_loading()  # there is nothing to store
        for worker_id in self._infos:
            self.retire(worker_id)

    def _call(
        self, worker_id: str, call: Any, *, is_last: bool = False, may_stall: bool = True
    ) -> None:
        late_s = time.monotonic() + self._stall_s if may_stall else math.inf
        self._calls[call] = _Call(worker_id, is_last, late_s)

    def _end_stalled(self) -> list[Event]:
        """A worker reports every second or so: one that does not for long hangs."""
        now_s = time.monotonic()
        stalled = {call.worker_id for call in self._calls.values() if call.late_s < now_s}
        reason = f"it hung: no report for {self._stall_s:g} s (run.stall_s)"
        deaths: list[Event] = [
            Died(worker_id, reason, node_id=self._node_of(worker_id))
            for worker_id in sorted(stalled)
        ]
        for worker_id in stalled:
            self._kill(worker_id)
        return deaths

    def _event(self, ref: Any) -> Event:
        call = self._calls.pop(ref)
        worker_id = call.worker_id
        try:
            result = ray.get(ref)
        except RayTaskError as error:
            if isinstance(error.cause, DyntsError):
                node_id = self._node_of(worker_id)
                self._kill(worker_id)
                return Failed(worker_id, error.cause, node_id)
            reason = f"{type(error.cause).__name__}: {error.cause}"
            return self._death(worker_id, reason, is_out_of_memory(error.cause))
        except RayError as error:
            return self._death(worker_id, _in_short(error), "running low on memory" in str(error))
        if isinstance(result, str):
            return Placed(worker_id)
        if isinstance(result, WorkerInfo):
            self._infos[worker_id] = result
            del self._loading[worker_id]
            return Loaded(worker_id, result, ray.get(self._places[worker_id]))
        if call.is_last or result.has_left:
            self._kill(worker_id)
            return Left(worker_id, result)
        return Reported(worker_id, result)

    def _death(self, worker_id: str, reason: str, out_of_memory: bool) -> Died:
        node_id = self._node_of(worker_id)
        self._kill(worker_id)
        return Died(worker_id, reason, out_of_memory, node_id)

    def _kill(self, worker_id: str) -> None:
        """Make sure that it is gone: what seems dead may be a process that hangs."""
        self._infos.pop(worker_id, None)
        self._loading.pop(worker_id, None)
        self._places.pop(worker_id, None)
        self._calls = {r: call for r, call in self._calls.items() if call.worker_id != worker_id}
        with contextlib.suppress(RayError):
            ray.kill(self._actors.pop(worker_id))

    def _device_share(self, worker_id: str) -> float:
        """Workers on one GPU share its time and energy, which are counted once per GPU."""
        uuids = Counter(info.device_uuid for info in self._infos.values())
        device_uuid = self._infos[worker_id].device_uuid
        return 1.0 if device_uuid is None else 1.0 / uuids[device_uuid]


def _in_short(error: RayError) -> str:
    """What Ray says in many lines: the detail of the exit if it knows it, without actor ids."""
    lines = [line for line in str(error).splitlines() if not line.startswith("\t")]
    text = " ".join(" ".join(lines).split())
    text = text.partition("Worker exit detail: ")[2] or text
    return text if len(text) <= _MAX_REASON_CHARS else f"{text[:_MAX_REASON_CHARS]}..."
