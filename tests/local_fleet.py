"""A fleet without Ray: workers in this process, one call at a time, that can be told to die."""

from collections.abc import Callable, Sequence

from dynts_batch.errors import DyntsError
from dynts_batch.runner.messages import (
    Assignment,
    Died,
    Event,
    Job,
    Left,
    Loaded,
    Report,
    Reported,
)
from dynts_batch.runner.worker import Worker


class LocalFleet:
    """See driver.Fleet. A worker that raises what is no DyntsError has died, as in Ray."""

    def __init__(self, job: Job, *, dies: Callable[[int], bool] = lambda call: False) -> None:
        """`dies` is asked, with the number of the call to a worker, whether that worker dies of it."""
        self._job, self._dies = job, dies
        self._workers: dict[str, Worker] = {}
        self._calls: list[tuple[str, Callable[[], Event]]] = []
        self._num_started = self._num_calls = 0
        self.shards_at_once: dict[str, int] = {}

    def start(self) -> None:
        worker_id = f"local-{self._num_started}"
        self._num_started += 1
        self._calls.append((worker_id, lambda: self._load(worker_id)))

    def send(self, worker_id: str, assignments: Sequence[Assignment], *, has_more: bool) -> None:
        assert worker_id not in [name for name, _ in self._calls], "one call at a time"
        self.shards_at_once[worker_id] = max(
            self.shards_at_once.get(worker_id, 0), len(assignments)
        )
        self._calls.append((worker_id, lambda: self._work(worker_id, assignments, has_more)))

    def wait(self, timeout_s: float) -> list[Event]:
        if not self._calls:
            return []
        _, call = self._calls.pop(0)
        return [call()]

    def close(self) -> None:
        for worker_id in self._workers:
            self._calls.append((worker_id, lambda name=worker_id: self._close(name)))

    def _load(self, worker_id: str) -> Event:
        worker = self._workers[worker_id] = Worker(worker_id, self._job)
        return Loaded(worker_id, worker.info)

    def _work(self, worker_id: str, assignments: Sequence[Assignment], has_more: bool) -> Event:
        self._num_calls += 1
        worker = self._workers[worker_id]
        try:
            if self._dies(self._num_calls):
                worker.work(assignments, has_more=has_more, device_share=1.0)
                raise RuntimeError("it had to die")
            return Reported(
                worker_id, worker.work(assignments, has_more=has_more, device_share=1.0)
            )
        except DyntsError:
            raise
        except Exception as error:  # noqa: BLE001  whatever it is, the process is gone
            del self._workers[worker_id]
            return Died(worker_id, f"{type(error).__name__}: {error}")

    def _close(self, worker_id: str) -> Event:
        report: Report = self._workers[worker_id].close()
        return Left(worker_id, report)
