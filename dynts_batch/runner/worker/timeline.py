"""A worker's telemetry over time: what goes into `workers/NAME-00000.parquet` of a run directory.

Owns the pace; knows nothing about where the figures come from or where they go.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from dynts_batch.data.readers.samples import SCHEMA

SAMPLE_S = 5.0
PART_ROWS = 120


class Timeline:
    """Collects samples in parts. A part is written again as it grows:
    a crash costs little of it."""

    def __init__(self, place: Mapping[str, Any]) -> None:
        """`place` holds the columns that never change: worker_id, node, device_*."""
        self._place = place
        self._rows: list[dict[str, Any]] = []
        self._sampled_at_s: float | None = None
        self._part = 0
        self._full: list[tuple[int, pa.Table]] = []

    def begin(self, sample: Mapping[str, Any], *, held_since_s: float) -> None:
        """Take the samples of a device that is held since a Unix time, and has not worked yet."""
        for time_s in (held_since_s, time.time()):
            self._rows.append({**self._place, **sample, "time_s": time_s})

    @property
    def is_due(self) -> bool:
        """Whether it is time for another sample."""
        return self._sampled_at_s is None or time.monotonic() >= self._sampled_at_s + SAMPLE_S

    def add(self, sample: Mapping[str, Any]) -> None:
        """Take a sample: a value for every column that changes."""
        self._sampled_at_s = time.monotonic()
        if len(self._rows) >= PART_ROWS:
            self._full.append(self._present())
            self._rows, self._part = [], self._part + 1
        self._rows.append({**self._place, "time_s": time.time(), **sample})

    def take(self) -> list[tuple[int, pa.Table]]:
        """What may have grown since this was last called: numbers of parts, and all their samples.
        The present part is the last one."""
        full, self._full = self._full, []
        return [*full, self._present()]

    def _present(self) -> tuple[int, pa.Table]:
        return self._part, pa.Table.from_pylist(self._rows, schema=SCHEMA)
