"""Finds this process's GPUs in NVML and reads them.

Owns the meaning of identifiers and NVML errors. Knows nothing about time. Every function takes the
initialised `nvml` module: nvidia-ml-py's `pynvml`, or a fake with the same functions.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

logger = logging.getLogger(__name__)

_UUID_CHARS = len("GPU-12345678-1234-1234-1234-123456789abc")


@dataclass(frozen=True, slots=True)
class DeviceReading:
    """One look at a device. None: the device does not support the field, or no longer gives it."""

    memory_used_bytes: int | None = None
    """Used by all processes and the driver, not by this process alone."""
    utilisation: float | None = None
    """Share of the last moments (up to 1 s) in which a kernel ran, 0 to 1."""
    power_w: float | None = None
    energy_counter_j: float | None = None
    """Joules since the driver was loaded. Only differences mean something."""


class Device:
    """One GPU, named by the UUID of the physical GPU even if the process has a MIG slice of it.

    For a slice, memory is the slice's own. Power and energy exist only for the whole GPU.
    """

    def __init__(self, nvml: Any, handle: Any) -> None:
        """Raises `nvml.NVMLError` if the device is not there."""
        self._nvml = nvml
        self._memory_handle = handle
        self._handle = handle
        if nvml.nvmlDeviceIsMigDeviceHandle(handle):
            self._handle = nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle)
        self.uuid: str = nvml.nvmlDeviceGetUUID(self._handle)
        self.name: str = nvml.nvmlDeviceGetName(handle)
        self.is_lost = False
        memory = self._ask(nvml.nvmlDeviceGetMemoryInfo, handle)
        self.memory_total_bytes: int | None = None if memory is None else memory.total

    def read(self) -> DeviceReading:
        """Never raises. A value that cannot be read is None; all are once the GPU is lost."""
        nvml = self._nvml
        memory = self._ask(nvml.nvmlDeviceGetMemoryInfo, self._memory_handle)
        rates = self._ask(nvml.nvmlDeviceGetUtilizationRates, self._handle)
        power_mw = self._ask(nvml.nvmlDeviceGetPowerUsage, self._handle)
        energy_mj = self._ask(nvml.nvmlDeviceGetTotalEnergyConsumption, self._handle)
        return DeviceReading(
            memory_used_bytes=None if memory is None else memory.used,
            utilisation=None if rates is None else rates.gpu / 100,
            power_w=None if power_mw is None else power_mw / 1000,
            energy_counter_j=None if energy_mj is None else energy_mj / 1000,
        )

    def _ask(self, function: Callable[[Any], Any], handle: Any) -> Any | None:
        if self.is_lost:
            return None
        try:
            return function(handle)
        except self._nvml.NVMLError as error:
            # Any other error is one missing value: not supported, or the driver is too busy.
            lost = (self._nvml.NVML_ERROR_GPU_IS_LOST, self._nvml.NVML_ERROR_RESET_REQUIRED)
            if error.value in lost:
                self.is_lost = True
                logger.warning("GPU %s is lost (%s): its telemetry ends here", self.uuid, error)
            return None


def visible_devices(environ: Mapping[str, str]) -> list[str] | None:
    """The entries of CUDA_VISIBLE_DEVICES as CUDA reads them. None, if it is unset, means all."""
    value = environ.get("CUDA_VISIBLE_DEVICES")
    if value is None:
        return None
    entries: list[str] = []
    for entry in (part.strip() for part in value.split(",")):
        if not (entry.isdecimal() or entry.startswith(("GPU-", "MIG-"))):
            break  # CUDA sees no device from the first invalid entry on, such as -1
        entries.append(entry)
    return entries


def open_devices(nvml: Any, identifiers: Sequence[str] | None) -> dict[str, Device | None]:
    """The devices by physical UUID, each once. One that is not there is None, with a warning.

    An identifier is an index, a UUID with or without "GPU-", the unambiguous start of one, or a MIG
    UUID. None means every GPU. An index counts in PCI order. CUDA uses that order only if the
    environment has CUDA_DEVICE_ORDER=PCI_BUS_ID, so prefer UUIDs.
    """
    if identifiers is None:
        identifiers = [str(index) for index in range(nvml.nvmlDeviceGetCount())]
    devices: dict[str, Device | None] = {}
    for identifier in identifiers:
        try:
            device = Device(nvml, _find(nvml, identifier))
            devices.setdefault(device.uuid, device)
        except nvml.NVMLError as error:
            logger.warning("NVML has no GPU %s (%s): its telemetry is null", identifier, error)
            devices[identifier] = None
    return devices


def _find(nvml: Any, identifier: str) -> Any:
    if identifier.isdecimal():
        return nvml.nvmlDeviceGetHandleByIndex(int(identifier))
    if identifier.startswith("MIG-"):
        return nvml.nvmlDeviceGetHandleByUUID(identifier)
    start = "GPU-" + identifier.removeprefix("GPU-")  # torch leaves the "GPU-" out
    if len(start) == _UUID_CHARS:  # ask no other GPU, because it may be broken
        return nvml.nvmlDeviceGetHandleByUUID(start)
    handles = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
    found = [handle for handle in handles if nvml.nvmlDeviceGetUUID(handle).startswith(start)]
    if len(found) != 1:
        raise nvml.NVMLError(nvml.NVML_ERROR_NOT_FOUND)
    return found[0]
