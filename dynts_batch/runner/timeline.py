"""A worker's telemetry over time: what goes into `workers/NAME-00000.parquet` of a run directory.

Owns the columns and the pace; knows nothing about where the figures come from or where they go.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

SAMPLE_S = 5.0
PART_ROWS = 120

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
        pa.field("max_seqs", pa.int64(), metadata={"description": "Sequences the arena holds"}),
        pa.field("busy_s", pa.float64(), metadata={"description": "Device seconds since loading"}),
        pa.field("cost_usd", pa.float64(), metadata={"description": "Price of busy_s and energy"}),
        pa.field("num_steps", pa.int64(), metadata={"description": "Engine steps since loading"}),
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
    """Collects samples in parts. A part is written again as it grows: a crash costs little of it."""

    def __init__(self, place: Mapping[str, Any]) -> None:
        """`place` holds the columns that never change: worker_id, node, device_*."""
        self._place = place
        self._rows: list[dict[str, Any]] = []
        self._sampled_at_s: float | None = None
        self._part = 0

    @property
    def is_due(self) -> bool:
        """Whether it is time for another sample."""
        return self._sampled_at_s is None or time.monotonic() >= self._sampled_at_s + SAMPLE_S

    def add(self, sample: Mapping[str, Any]) -> None:
        """Take a sample: a value for every column that changes."""
        self._sampled_at_s = time.monotonic()
        if len(self._rows) >= PART_ROWS:
            self._rows, self._part = [], self._part + 1
        self._rows.append({**self._place, "time_s": time.time(), **sample})

    def part(self) -> tuple[int, pa.Table]:
        """The number of the present part and all its samples so far; there is at least one."""
        return self._part, pa.Table.from_pylist(self._rows, schema=SCHEMA)
