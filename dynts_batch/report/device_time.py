"""What the workers' telemetry says: how long they held devices, how busy those were, and what they
stored.

Reads samples over time, one part after another. Knows nothing about rows. What was not sampled is
None.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc


@dataclass(frozen=True)
class DeviceTime:
    """All workers together, over all starts of the run."""

    wall_s: float
    """Seconds with at least one worker loaded and at work."""
    held_s: float
    """Device seconds from the start of each worker's loading to its last sample. A shared device
    counts once."""
    busy_share: float | None
    """Share of `held_s` in which the engine worked. None with a single sample."""
    utilisation: float | None
    """The GPU's own figure (NVML), mean over samples. None without one."""
    peak_running: int
    """Most sequences that one worker decoded together. Where some rows ran again in a larger cache,
    those workers decode fewer."""
    mean_running: float
    """Sequences that a worker decoded together, mean over samples with any."""
    arena_bytes: int
    """The arena of the worker that decoded so many; the smallest one if several did."""
    held_usd: float | None
    """What the workers cost in that time, at the prices of their starts. None if one had no
    price."""
    shrunk_to: int | None
    """Fewest sequences that a shrunk arena held; None if none shrank."""
    device_peak_bytes: int | None
    rss_peak_bytes: int | None


def measure_device_time(parts: Iterable[pa.Table]) -> DeviceTime | None:
    """From samples in `parts`, in any order and of any workers. None without a sample."""
    sums = [sums for part in parts if part.num_rows for sums in _sums(part)]
    if not sums:
        return None
    by_worker: dict[str, list[dict]] = {}
    for found in sums:
        by_worker.setdefault(found["worker_id"], []).append(found)
    spans: dict[str, list[tuple[float, float]]] = {}
    num_devices: dict[str, int] = {}
    worked: list[tuple[float, float]] = []
    arenas: list[tuple[int, int]] = []
    usd: list[float | None] = []
    busy_s = 0.0
    for worker_id, its in by_worker.items():
        span = min(s["time_s_min"] for s in its), max(s["time_s_max"] for s in its)
        devices = its[0]["device_uuid"] or worker_id
        spans.setdefault(devices, []).append(span)
        num_devices[devices] = _largest(its, "num_devices_max") or 1
        unused_s = [s["unused_s_max"] for s in its if s["unused_s_max"] is not None]
        worked.append((max(unused_s, default=span[0]), span[1]))
        arenas.append(
            (_largest(its, "num_running_max") or 0, _largest(its, "arena_bytes_max") or 0)
        )
        usd.append(_largest(its, "cost_usd_max"))
        busy_s += max(s["busy_s_max"] for s in its) - min(s["busy_s_min"] for s in its)
    every_span = [span for its_spans in spans.values() for span in its_spans]
    sampled_s = sum(end_s - start_s for start_s, end_s in every_span)
    peak_running, arena_bytes = max(arenas, key=lambda arena: (arena[0], -arena[1]))
    return DeviceTime(
        wall_s=covered_s(worked),
        held_s=sum(covered_s(its) * num_devices[name] for name, its in spans.items()),
        busy_share=min(1.0, busy_s / sampled_s) if sampled_s > 0 else None,
        utilisation=_mean(sums, "utilisation_mean"),
        peak_running=peak_running,
        mean_running=_mean(sums, "when_running") or 0.0,
        arena_bytes=arena_bytes,
        held_usd=None if None in usd else sum(filter(None, usd)),
        shrunk_to=min(filter(None, map(_shrunk_to, by_worker.values())), default=None),
        device_peak_bytes=_largest(sums, "device_peak_bytes_max"),
        rss_peak_bytes=_largest(sums, "rss_peak_bytes_max"),
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


def _sums(samples: pa.Table) -> list[dict]:
    """Per worker and device: sums, counts and ends of its samples. `busy_s` only grows."""
    running = samples["num_running"]
    is_running = pc.greater(running, 0)
    samples = samples.append_column("when_running", pc.if_else(is_running, running, None))
    is_unused = pc.equal(samples["num_steps"], 0)  # loads, or waits for its first work
    samples = samples.append_column("unused_s", pc.if_else(is_unused, samples["time_s"], None))
    ends = [(name, end) for name in ("time_s", "busy_s") for end in ("min", "max")]
    peaks = (
        "num_devices",
        "unused_s",
        "num_running",
        "arena_bytes",
        "cost_usd",
        "device_peak_bytes",
        "rss_peak_bytes",
    )
    ends += [("max_seqs", "min"), ("max_seqs", "max")]
    means = [
        (name, part) for name in ("when_running", "utilisation_mean") for part in ("sum", "count")
    ]
    grouped = samples.group_by(["worker_id", "device_uuid"])
    return grouped.aggregate([*ends, *((name, "max") for name in peaks), *means]).to_pylist()


def _shrunk_to(sums: list[dict]) -> int | None:
    """Per worker, since one worker's arena never grows."""
    known = [found for found in sums if found["max_seqs_max"] is not None]
    least = min((found["max_seqs_min"] for found in known), default=0)
    return least if least < (_largest(known, "max_seqs_max") or 0) else None


def _mean(sums: list[dict], column: str) -> float | None:
    """Mean over the samples that know it."""
    count = sum(found[f"{column}_count"] for found in sums)
    return sum(found[f"{column}_sum"] or 0 for found in sums) / count if count else None


def _largest(sums: list[dict], column: str) -> Any:
    return max((found[column] for found in sums if found[column] is not None), default=None)
