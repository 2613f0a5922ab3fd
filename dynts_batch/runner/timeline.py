"""A worker's telemetry over time: what goes into `workers/NAME-00000.parquet` of a run directory.

Owns the columns and the pace; knows nothing about where the figures come from or where they go.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

SAMPLE_S = 5.0
PART_S = 600.0

SCHEMA = pa.schema(
    [
        pa.field("worker_id", pa.string()),
        pa.field("node", pa.string()),
        pa.field("device_name", pa.string()),
        pa.field("device_uuid", pa.string()),
        pa.field("time_s", pa.float64(), metadata={"description": "Unix time"}),
        pa.field("num_running", pa.int64(), metadata={"description": "Sequences decoded now"}),
        pa.field("num_waiting", pa.int64(), metadata={"description": "Requests in its queue"}),
        pa.field("stored_tokens", pa.int64(), metadata={"description": "Tokens in the arena now"}),
        pa.field("arena_bytes", pa.int64(), metadata={"description": "Allocated for the arena"}),
        pa.field("busy_s", pa.float64(), metadata={"description": "Device seconds since loading"}),
        pa.field("completion_tokens", pa.int64(), metadata={"description": "Of finished rows"}),
        pa.field("energy_j", pa.float64(), metadata={"description": "Whole device, since loading"}),
        pa.field("rss_peak_bytes", pa.int64(), metadata={"description": "Host memory, process"}),
        pa.field("device_peak_bytes", pa.int64(), metadata={"description": "NVML, all processes"}),
        pa.field("allocator_peak_bytes", pa.int64(), metadata={"description": "torch, process"}),
        pa.field("utilisation_mean", pa.float64(), metadata={"description": "0 to 1, so far"}),
        pa.field("power_mean_w", pa.float64(), metadata={"description": "So far"}),
    ]
)


class Timeline:
    """Collects samples and gives them out in parts, so that a crash costs at most one part."""

    def __init__(self, place: Mapping[str, Any]) -> None:
        """`place` holds the columns that never change: worker_id, node, device_*."""
        self._place = place
        self._rows: list[dict[str, Any]] = []
        self._sampled_at_s: float | None = None
        self._part_at_s = time.monotonic()

    @property
    def is_due(self) -> bool:
        """Whether it is time for another sample."""
        return self._sampled_at_s is None or time.monotonic() >= self._sampled_at_s + SAMPLE_S

    @property
    def is_part_due(self) -> bool:
        """Whether what is collected is worth a file."""
        return bool(self._rows) and time.monotonic() >= self._part_at_s + PART_S

    def add(self, sample: Mapping[str, Any]) -> None:
        """Take a sample: a value for every column that changes."""
        self._sampled_at_s = time.monotonic()
        self._rows.append({**self._place, "time_s": time.time(), **sample})

    def take_part(self) -> pa.Table:
        """All samples since the last part."""
        rows, self._rows = self._rows, []
        self._part_at_s = time.monotonic()
        return pa.Table.from_pylist(rows, schema=SCHEMA)
