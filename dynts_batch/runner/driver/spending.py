"""What the workers of one start of a run have cost: what they report, and the time since they did.

A worker that has nothing to do says nothing, nor does one that loads, and both hold a device that is paid for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Set

from dynts_batch.config import Config


class Spending:
    """Times are those of one monotonic clock, in seconds."""

    def __init__(self, config: Config) -> None:
        self._usd_per_s = (config.cost.usd_per_gpu_hour or 0.0) / 3600
        self._share = config.workers.num_gpus or 1.0
        self._usd: dict[str, float] = {}
        self._since_s: dict[str, float] = {}
        """Of those that hold a device: up to when their dollars count."""
        self._devices: dict[str, str] = {}
        self._num_devices: dict[str, int] = {}

    def hold(
        self, worker_id: str, device_uuid: str | None, now_s: float, num_devices: int | None = None
    ) -> None:
        """It holds its devices from now on, if it did not before; None is what is not known yet, or a CPU."""
        self._usd.setdefault(worker_id, 0.0)
        self._since_s.setdefault(worker_id, now_s)
        if device_uuid is not None:
            self._devices[worker_id] = device_uuid
        if num_devices is not None:
            self._num_devices[worker_id] = num_devices

    def report(self, worker_id: str, usd: float, now_s: float) -> None:
        """Its dollars until now, as it says."""
        self._usd[worker_id], self._since_s[worker_id] = usd, now_s

    def end(self, worker_id: str, now_s: float) -> None:
        """It is gone."""
        if worker_id in self._since_s:
            self._usd[worker_id] += self._unreported(worker_id, now_s)
            del self._since_s[worker_id]
            self._devices.pop(worker_id, None)
            self._num_devices.pop(worker_id, None)

    def end_all_but(self, workers: Set[str], now_s: float) -> None:
        """Only `workers` are still there."""
        for worker_id in self._since_s.keys() - workers:
            self.end(worker_id, now_s)

    def total(self, now_s: float) -> float:
        """Dollars of all of them, those that are gone too."""
        return sum(self._usd.values()) + sum(self._unreported(w, now_s) for w in self._since_s)

    def _unreported(self, worker_id: str, now_s: float) -> float:
        device = self._devices.get(worker_id)
        on_device = Counter(self._devices.values())
        num_devices = self._num_devices.get(worker_id, 1)
        share = self._share if device is None else num_devices / on_device[device]
        return (now_s - self._since_s[worker_id]) * share * self._usd_per_s
