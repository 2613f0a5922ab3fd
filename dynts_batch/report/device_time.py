"""What the workers' telemetry says: how long devices were held, how much of that they worked, and what they held.

Reads samples over time; knows nothing about rows. Everything is None where nothing was sampled.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


@dataclass(frozen=True)
class DeviceTime:
    """Of all workers together, all starts of the run."""

    wall_s: float
    """Seconds in which at least one worker worked."""
    held_s: float
    """Device seconds from each worker's first sample to its last; a device that several share counts once."""
    busy_share: float | None
    """Share of that in which the engine was at work; None with a single sample."""
    utilisation: float | None
    """The GPU's own figure (NVML), mean over workers; None without one."""
    peak_running: int
    """Most sequences that one worker decoded together."""
    mean_running: float
    """Sequences decoded together by a worker, mean over samples with any."""
    arena_bytes: int
    """Of one worker's arena: the largest."""
    device_peak_bytes: int | None
    rss_peak_bytes: int | None


def measure_device_time(telemetry: pa.Table | None) -> DeviceTime | None:
    """None without a sample."""
    if telemetry is None or telemetry.num_rows == 0:
        return None
    spans: dict[str, list[tuple[float, float]]] = {}
    busy_s = sampled_s = 0.0
    for _, samples in workers(telemetry):
        times, busy = _floats(samples, "time_s"), _floats(samples, "busy_s")
        device = samples["device_uuid"][0].as_py() or samples["worker_id"][0].as_py()
        spans.setdefault(device, []).append((times[0], times[-1]))
        busy_s += busy[-1] - busy[0]
        sampled_s += times[-1] - times[0]
    running = _floats(telemetry, "num_running")
    utilisation = _floats(telemetry, "utilisation_mean")
    known = utilisation[~np.isnan(utilisation)]
    return DeviceTime(
        wall_s=covered_s(span for its_spans in spans.values() for span in its_spans),
        held_s=sum(covered_s(its_spans) for its_spans in spans.values()),
        busy_share=min(1.0, busy_s / sampled_s) if sampled_s > 0 else None,
        utilisation=float(known.mean()) if len(known) else None,
        peak_running=int(running.max()),
        mean_running=float(running[running > 0].mean()) if running.any() else 0.0,
        arena_bytes=pc.max(telemetry["arena_bytes"]).as_py(),
        device_peak_bytes=pc.max(telemetry["device_peak_bytes"]).as_py(),
        rss_peak_bytes=pc.max(telemetry["rss_peak_bytes"]).as_py(),
    )


def workers(telemetry: pa.Table) -> list[tuple[str, pa.Table]]:
    """The samples of each worker, in order of time."""
    found = []
    for worker_id in sorted(set(telemetry["worker_id"].to_pylist())):
        samples = telemetry.filter(pc.equal(telemetry["worker_id"], worker_id))
        found.append((worker_id, samples.sort_by("time_s")))
    return found


def covered_s(spans: Iterable[tuple[float, float]]) -> float:
    """Length of the union of `spans` (start, end)."""
    total_s, until_s = 0.0, float("-inf")
    for start_s, end_s in sorted(spans):
        total_s += max(0.0, end_s - max(start_s, until_s))
        until_s = max(until_s, end_s)
    return total_s


def _floats(table: pa.Table, column: str) -> np.ndarray:
    return table[column].combine_chunks().cast(pa.float64()).to_numpy(zero_copy_only=False)
