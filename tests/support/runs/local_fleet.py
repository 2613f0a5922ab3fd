"""A fleet without Ray: workers in this process, one call at a time, that can be told to die."""

import dataclasses
import uuid
from collections.abc import Callable, Sequence

from dynts_batch.engine.out_of_memory import is_out_of_memory
from dynts_batch.errors import DyntsError
from dynts_batch.runner.messages import (
    Assignment,
    Died,
    Event,
    Failed,
    Job,
    Left,
    Loaded,
    Orders,
    Report,
    Reported,
)
from dynts_batch.runner.worker.worker import Worker


class LocalFleet:
    """See fleet.Fleet. A worker that raises what is no DyntsError has died, as in Ray."""

    def __init__(
        self,
        job: Job,
        *,
        dies: Callable[[int], bool] = lambda call: False,
        report_s: float | None = None,
    ) -> None:
        """`dies` is asked, with the number of the call to a worker, whether that worker dies of it.
        `report_s` replaces that of all orders."""
        self._job, self._dies, self._report_s = job, dies, report_s
        self._session = uuid.uuid4().hex[:4]
        self._workers: dict[str, Worker] = {}
        self._calls: list[tuple[str, Callable[[], Event]]] = []
        self._has_room = True
        self.num_started = self._num_calls = 0
        self.shards_at_once: dict[str, int] = {}

    def start(self, *, max_seqs: int | None = None) -> str:
        worker_id = f"{self.num_started}-{self._session}"
        self.num_started += 1
        self._calls.append((worker_id, lambda: self._load(worker_id, max_seqs)))
        return worker_id

    def nodes(self) -> dict[str, str]:
        return {"here": "here"}

    def node_of(self, worker_id: str) -> str:
        return "here"

    def avoid(self, nodes: frozenset[str], *, may_wait: bool) -> None:
        assert nodes < self.nodes().keys() or may_wait or not nodes
        self._has_room = nodes != self.nodes().keys()

    def send(self, worker_id: str, assignments: Sequence[Assignment], orders: Orders) -> None:
        assert worker_id not in [name for name, _ in self._calls], "one call at a time"
        self.shards_at_once[worker_id] = max(
            self.shards_at_once.get(worker_id, 0), len(assignments)
        )
        if self._report_s is not None:
            orders = dataclasses.replace(orders, report_s=self._report_s)
        self._calls.append((worker_id, lambda: self._work(worker_id, assignments, orders)))

    def retire(self, worker_id: str) -> None:
        self._calls.append((worker_id, lambda: self._close(worker_id)))

    def cancel_loading(self) -> None:
        self._calls = [call for call in self._calls if call[0] in self._workers]

    def wait(self, timeout_s: float) -> list[Event]:
        may = [call for call in self._calls if self._has_room or call[0] in self._workers]
        if not may:
            return []
        self._calls.remove(may[0])
        return [may[0][1]()]

    def close(self) -> None:
        for worker_id in self._workers:
            self._calls.append((worker_id, lambda name=worker_id: self._close(name)))

    def _load(self, worker_id: str, max_seqs: int | None) -> Event:
        worker = self._workers[worker_id] = Worker(worker_id, self._job, max_seqs=max_seqs)
        return Loaded(worker_id, worker.info, self.node_of(worker_id))

    def _work(self, worker_id: str, assignments: Sequence[Assignment], orders: Orders) -> Event:
        self._num_calls += 1
        worker = self._workers[worker_id]
        try:
            if self._dies(self._num_calls):
                worker.work(assignments, orders, device_share=1.0)
                raise RuntimeError("it had to die")
            report = worker.work(assignments, orders, device_share=1.0)
        except DyntsError as error:
            self._bury(worker_id)
            return Failed(worker_id, error)
        except Exception as error:  # noqa: BLE001  whatever it is, the process is gone
            self._bury(worker_id)
            reason = f"{type(error).__name__}: {error}"
            return Died(worker_id, reason, is_out_of_memory(error), self.node_of(worker_id))
        return self._left(worker_id, report) if report.has_left else Reported(worker_id, report)

    def _close(self, worker_id: str) -> Event:
        try:
            return self._left(worker_id, self._workers[worker_id].close())
        except DyntsError as error:
            self._bury(worker_id)
            return Failed(worker_id, error)

    def _bury(self, worker_id: str) -> None:
        """Nothing of it lives on, as of a process: what its writer has not begun is never written.

        A writer that went on committed shards beside the worker that ran them again.
        """
        self._calls = [call for call in self._calls if call[0] != worker_id]
        worker = self._workers.pop(worker_id)
        worker._thread.shutdown(wait=True, cancel_futures=True)
        worker._devices.close()
        worker._grader.close()
        worker._warnings.close()

    def _left(self, worker_id: str, report: Report) -> Event:
        del self._workers[worker_id]
        self._calls = [call for call in self._calls if call[0] != worker_id]
        return Left(worker_id, report)
