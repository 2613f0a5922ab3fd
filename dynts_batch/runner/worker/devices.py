"""The devices that one worker holds, measured as one: a model may be spread over several GPUs.

What each GPU gives is telemetry's; what a second of them costs is pricing.py's.
"""

from __future__ import annotations

import platform
import socket
from collections.abc import Iterable, Sequence
from typing import Any

from dynts_batch.telemetry import DeviceMeter


class Devices:
    """Measures from its making to `close`; without a GPU, this process's memory only."""

    def __init__(self, gpu_uuids: Sequence[str], num_devices: int) -> None:
        """`num_devices` are paid for, and of some of them the UUID may not be known."""
        self.gpu_uuids, self.num_devices = tuple(gpu_uuids), num_devices
        self._meter = DeviceMeter(self.gpu_uuids)
        self._meter.start()

    def place(self, worker_id: str) -> dict[str, Any]:
        """The columns of every row of this worker that say where it ran."""
        names = [device.name or "GPU" for device in self._meter.summary().devices]
        name = names[0] if names else platform.processor() or platform.machine()
        return {
            "worker_id": worker_id,
            "node": socket.gethostname(),
            "device_name": f"{len(names)} x {name}" if len(names) > 1 else name,
            "device_uuid": ",".join(self.gpu_uuids) or None,
        }

    def sample(self) -> None:
        """Read the counters now, out of turn."""
        self._meter.sample()

    @property
    def energy_j(self) -> float | None:
        """Of all of them since the meter started;
        None where one does not say, or there is no GPU."""
        return _sum(self._meter.energy_j(uuid) for uuid in self.gpu_uuids)

    @property
    def peak_bytes(self) -> int | None:
        """Of the fullest one."""
        peaks = [device.memory_peak_bytes for device in self._meter.summary().devices]
        return max((peak for peak in peaks if peak is not None), default=None)

    def figures(self) -> dict[str, Any]:
        """The columns of a telemetry sample."""
        measured = self._meter.summary()
        used = [d.utilisation_mean for d in measured.devices if d.utilisation_mean is not None]
        return {
            "num_devices": self.num_devices,
            "rss_peak_bytes": measured.process.rss_peak_bytes,
            "energy_j": self.energy_j,
            "device_peak_bytes": self.peak_bytes,
            "utilisation_mean": sum(used) / len(used) if used else None,
            "power_mean_w": _sum(device.power_mean_w for device in measured.devices),
        }

    def close(self) -> None:
        self._meter.close()


def _sum(parts: Iterable[float | None]) -> float | None:
    """None where a part is unknown, or there is none."""
    known = list(parts)
    return None if not known or None in known else sum(part for part in known if part is not None)
