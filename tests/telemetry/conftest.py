"""A faithful fake of the part of pynvml that the meter uses: same functions, units and errors."""
# ruff: noqa: N802  # the names are pynvml's

from dataclasses import dataclass, field
from types import SimpleNamespace

import pynvml
import pytest

GIB = 1024**3


@dataclass
class FakeGpu:
    uuid: str
    memory_used_bytes: int = 10 * GIB
    memory_total_bytes: int = 80 * GIB
    utilisation_percent: int = 50
    power_mw: int = 200_000
    energy_mj: int = 7_000_000
    mig_parent: "FakeGpu | None" = None
    errors: dict[str, int] = field(default_factory=dict)
    """Function name (or "*") to the NVML error code it fails with."""


class FakeNvml:
    """Stands in for the module. Handles are the FakeGpu objects; MIG slices have no index."""

    NVMLError = pynvml.NVMLError
    NVML_ERROR_NOT_FOUND = pynvml.NVML_ERROR_NOT_FOUND
    NVML_ERROR_GPU_IS_LOST = pynvml.NVML_ERROR_GPU_IS_LOST
    NVML_ERROR_RESET_REQUIRED = pynvml.NVML_ERROR_RESET_REQUIRED

    def __init__(self, gpus: list[FakeGpu], init_error: int | None = None) -> None:
        self.gpus = gpus
        self.init_error = init_error
        self.num_inits = 0

    def nvmlInit(self):
        if self.init_error is not None:
            raise pynvml.NVMLError(self.init_error)
        self.num_inits += 1

    def nvmlShutdown(self):
        self.num_inits -= 1

    def nvmlDeviceGetCount(self):
        return len([gpu for gpu in self.gpus if gpu.mig_parent is None])

    def nvmlDeviceGetHandleByIndex(self, index):
        physical = [gpu for gpu in self.gpus if gpu.mig_parent is None]
        if index >= len(physical):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_INVALID_ARGUMENT)
        return physical[index]

    def nvmlDeviceGetHandleByUUID(self, uuid):
        for gpu in self.gpus:
            if gpu.uuid == uuid:
                return gpu
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)

    def nvmlDeviceIsMigDeviceHandle(self, gpu):
        return int(gpu.mig_parent is not None)

    def nvmlDeviceGetDeviceHandleFromMigDeviceHandle(self, gpu):
        return gpu.mig_parent

    def nvmlDeviceGetUUID(self, gpu):
        return gpu.uuid

    def nvmlDeviceGetName(self, gpu):
        return "NVIDIA Fake" + (" MIG 1g.10gb" if gpu.mig_parent else "")

    def nvmlDeviceGetMemoryInfo(self, gpu):
        self._check(gpu, "nvmlDeviceGetMemoryInfo")
        return SimpleNamespace(used=gpu.memory_used_bytes, total=gpu.memory_total_bytes)

    def nvmlDeviceGetUtilizationRates(self, gpu):
        self._check(gpu, "nvmlDeviceGetUtilizationRates")
        return SimpleNamespace(gpu=gpu.utilisation_percent, memory=0)

    def nvmlDeviceGetPowerUsage(self, gpu):
        self._check(gpu, "nvmlDeviceGetPowerUsage")
        return gpu.power_mw

    def nvmlDeviceGetTotalEnergyConsumption(self, gpu):
        self._check(gpu, "nvmlDeviceGetTotalEnergyConsumption")
        return gpu.energy_mj

    def _check(self, gpu, function):
        error = gpu.errors.get("*", gpu.errors.get(function))
        if error is not None:
            raise pynvml.NVMLError(error)


UUIDS = [f"GPU-{digit * 8}-0000-0000-0000-000000000000" for digit in "abc"]


@pytest.fixture
def gpus() -> list[FakeGpu]:
    return [FakeGpu(uuid) for uuid in UUIDS]


@pytest.fixture
def nvml(gpus: list[FakeGpu]) -> FakeNvml:
    return FakeNvml(gpus)


@pytest.fixture
def mig_slice(gpus: list[FakeGpu]) -> FakeGpu:
    uuid = "MIG-11111111-0000-0000-0000-000000000000"
    errors = dict.fromkeys(
        ["nvmlDeviceGetPowerUsage", "nvmlDeviceGetTotalEnergyConsumption"],
        pynvml.NVML_ERROR_NOT_SUPPORTED,
    )
    gpu = FakeGpu(uuid, memory_used_bytes=GIB, mig_parent=gpus[1], errors=errors)
    gpus.append(gpu)
    return gpu
