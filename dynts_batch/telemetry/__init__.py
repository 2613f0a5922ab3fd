"""What a process used of the hardware: GPU memory, utilisation, power, energy and host memory.

Knows nothing about models or runs. Needs no torch and no Ray. `log.py` sets up logging.
"""

from dynts_batch.telemetry.log import setup_logging
from dynts_batch.telemetry.meter import (
    DeviceMeter,
    DeviceSummary,
    MeterSummary,
    ProcessSummary,
)
from dynts_batch.telemetry.warning_log import WarningLog

__all__ = [
    "DeviceMeter",
    "DeviceSummary",
    "MeterSummary",
    "ProcessSummary",
    "WarningLog",
    "setup_logging",
]
