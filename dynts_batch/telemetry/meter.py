"""Samples this process's GPUs and its host memory in the background.

NVML sees whole GPUs. So memory, power and energy are a GPU's, whoever uses it. If two processes
meter the same UUID, both see all of its joules. The caller, who sees both, must count each UUID
once.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import psutil
import pynvml

from dynts_batch.telemetry.gauge import Energy, Gauge
from dynts_batch.telemetry.nvml import Device, DeviceReading, open_devices, visible_devices

logger = logging.getLogger(__name__)

_JOIN_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class DeviceSummary:
    """One GPU over the life of the meter; None is unknown. Utilisation is 0 to 1.

    Peaks are as fine as the sampling interval; means are over time. Memory is that of all processes
    on the GPU, or of the MIG slice. Energy is the GPU's since the meter started.
    """

    uuid: str
    name: str | None
    memory_peak_bytes: int | None
    memory_mean_bytes: float | None
    memory_total_bytes: int | None
    utilisation_mean: float | None
    power_mean_w: float | None
    energy_j: float | None
    num_samples: int
    """Samples in which the device gave at least one figure."""


@dataclass(frozen=True, slots=True)
class ProcessSummary:
    """Resident host memory of this process."""

    rss_peak_bytes: int
    rss_mean_bytes: float


@dataclass(frozen=True, slots=True)
class MeterSummary:
    """The result of `DeviceMeter.summary`. `devices` keeps the order in which they were given."""

    started_at_s: float
    """Unix time of the first sample, which puts several workers on one axis."""
    duration_s: float
    process: ProcessSummary
    devices: tuple[DeviceSummary, ...]


class DeviceMeter:
    """Measures the GPUs named by `device_uuids` and this process's memory every `interval_s`.

    Names may be UUIDs (with or without "GPU-"), MIG UUIDs or indices. None takes those of
    CUDA_VISIBLE_DEVICES, or all if that is unset. An empty sequence takes none and does not touch
    NVML. Without NVML every GPU figure is None, which is logged once. No method raises because of a
    device. A context manager; any thread may call.
    """

    def __init__(
        self,
        device_uuids: Sequence[str] | None = None,
        *,
        interval_s: float = 0.5,
        nvml: Any = pynvml,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._identifiers = (
            visible_devices(os.environ) if device_uuids is None else list(device_uuids)
        )
        self._interval_s = interval_s
        self._nvml = nvml
        self._clock = clock
        self._process = psutil.Process()
        self._rss = Gauge()
        self._devices: dict[str, _MeteredDevice] = {}
        self._started_at_s = self._started_s = self._last_t_s = 0.0
        # Two locks: a driver that hangs in a read must not block callers who only want figures.
        self._reading = threading.Lock()
        self._figures = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="device-meter", daemon=True)
        self._uses_nvml = False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def start(self) -> None:
        """Find the devices, take the first sample (zero joules), start sampling. Call it once."""
        self._devices = {
            uuid: _MeteredDevice(uuid, device) for uuid, device in self._open_devices().items()
        }
        self._started_at_s = time.time()
        self._started_s = self._clock()
        self.sample()
        self._thread.start()

    def close(self) -> None:
        """Take the last sample and stop. Figures stay readable. Closing again does nothing."""
        if self._stop.is_set() or self._thread.ident is None:
            return
        self._stop.set()
        self._thread.join(_JOIN_TIMEOUT_S)
        if self._thread.is_alive():
            logger.warning("the GPU driver does not answer: the last samples are missing")
            return
        self.sample()
        if self._uses_nvml:
            self._nvml.nvmlShutdown()

    def sample(self) -> None:
        """Sample now, which brings `energy_j` and `summary` up to this moment."""
        with self._reading:
            readings = {uuid: metered.read() for uuid, metered in self._devices.items()}
            rss_bytes = self._process.memory_info().rss
            with self._figures:
                self._record(self._clock() - self._started_s, readings, rss_bytes)

    def energy_j(self, uuid: str) -> float | None:
        """Joules of the GPU since the start, as of the latest sample; None if unknown.

        `uuid` is as in `summary`. KeyError for a GPU that is not metered.
        """
        with self._figures:
            return self._devices[uuid].energy_j

    def summary(self) -> MeterSummary:
        """The figures up to the latest sample."""
        with self._figures:
            assert self._rss.peak is not None, "summary() before start()"
            assert self._rss.mean is not None, "summary() before start()"
            return MeterSummary(
                started_at_s=self._started_at_s,
                duration_s=self._last_t_s,
                process=ProcessSummary(int(self._rss.peak), self._rss.mean),
                devices=tuple(metered.summary() for metered in self._devices.values()),
            )

    def _open_devices(self) -> dict[str, Device | None]:
        if self._identifiers is not None and not self._identifiers:
            return {}
        try:
            self._nvml.nvmlInit()
            self._uses_nvml = True
            return open_devices(self._nvml, self._identifiers)
        except self._nvml.NVMLError as error:
            level = logging.INFO if self._identifiers is None else logging.WARNING
            logger.log(level, "no NVML (%s): GPU memory, power and energy are null", error)
            return dict.fromkeys(self._identifiers or [])

    def _run(self) -> None:
        while not self._stop.wait(self._interval_s):
            self.sample()

    def _record(self, t_s: float, readings: dict[str, DeviceReading], rss_bytes: int) -> None:
        self._last_t_s = t_s
        self._rss.add(t_s, rss_bytes)
        for uuid, reading in readings.items():
            self._devices[uuid].add(t_s, reading)


class _MeteredDevice:
    """A device and its running figures. `device` is None if NVML does not have it."""

    def __init__(self, uuid: str, device: Device | None) -> None:
        self._uuid = uuid
        self._device = device
        self._memory = Gauge()
        self._utilisation = Gauge()
        self._power = Gauge()
        self._energy: Energy | None = None
        self._num_samples = 0

    @property
    def energy_j(self) -> float | None:
        return None if self._energy is None else self._energy.joules

    def read(self) -> DeviceReading:
        return DeviceReading() if self._device is None else self._device.read()

    def add(self, t_s: float, reading: DeviceReading) -> None:
        self._num_samples += reading != DeviceReading()
        self._memory.add(t_s, reading.memory_used_bytes)
        self._utilisation.add(t_s, reading.utilisation)
        self._power.add(t_s, reading.power_w)
        if self._energy is None:
            self._energy = Energy(self._power, reading.energy_counter_j)
        else:
            self._energy.add(reading.energy_counter_j)

    def summary(self) -> DeviceSummary:
        device = self._device
        peak = self._memory.peak
        return DeviceSummary(
            uuid=self._uuid,
            name=None if device is None else device.name,
            memory_peak_bytes=None if peak is None else int(peak),
            memory_mean_bytes=self._memory.mean,
            memory_total_bytes=None if device is None else device.memory_total_bytes,
            utilisation_mean=self._utilisation.mean,
            power_mean_w=self._power.mean,
            energy_j=self.energy_j,
            num_samples=self._num_samples,
        )
