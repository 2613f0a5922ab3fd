"""What the workers of one start of a run have cost: what they report, and the time since they did.

A worker that has nothing to do says nothing, nor does one that loads, and both hold a device that
is paid for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from dynts_batch.config import Config
from dynts_batch.runner.driver.roster import WorkerRecord


class Spending:
    """Dollars of `workers`, kept in their records, and of those that are gone.

    Times are those of the monotonic clock, in seconds.
    """

    def __init__(self, config: Config, workers: Mapping[str, WorkerRecord]) -> None:
        self._usd_per_s = (config.cost.usd_per_gpu_hour or 0.0) / 3600
        self._share = config.workers.num_gpus or 1.0
        self._workers = workers
        self._usd_of_gone = 0.0

    def hold(self, worker: WorkerRecord, now_s: float) -> None:
        """It holds a device from now on, if it did not before."""
        if worker.usd_until_s is None:
            worker.usd_until_s = now_s

    def report(self, worker: WorkerRecord, usd: float, now_s: float) -> None:
        """Its dollars until now, as it says."""
        worker.usd, worker.usd_until_s = usd, now_s

    def end(self, worker: WorkerRecord, now_s: float) -> None:
        """It is about to be removed."""
        self._usd_of_gone += self._usd_of(worker, self._num_on_devices(), now_s)

    def total(self, now_s: float) -> float:
        """Dollars of all of them, those that are gone too."""
        on_devices, workers = self._num_on_devices(), self._workers.values()
        return self._usd_of_gone + sum(self._usd_of(w, on_devices, now_s) for w in workers)

    def _num_on_devices(self) -> Counter[str | None]:
        infos = (worker.info for worker in self._workers.values())
        return Counter(info.device_uuid for info in infos if info is not None)

    def _usd_of(self, worker: WorkerRecord, on_devices: Counter[str | None], now_s: float) -> float:
        if worker.usd_until_s is None:
            return 0.0
        share = self._share
        if worker.info is not None and (device := worker.info.device_uuid) is not None:
            share = worker.info.num_devices / on_devices[device]
        return worker.usd + (now_s - worker.usd_until_s) * share * self._usd_per_s
