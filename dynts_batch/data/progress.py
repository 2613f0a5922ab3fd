"""How far a run is, from its run directory alone: while it runs, after it, and without Ray."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dynts_batch.data.first_attempt import COLUMNS, needs_retry
from dynts_batch.data.run_dir import RunDir
from dynts_batch.data.shard_table import read_columns

_RATE_WINDOW = 64  # commits: long enough to be steady, short enough to follow a change of workers


@dataclass(frozen=True)
class Progress:
    """Counts are rows (one per request and sample) unless the name says shards."""

    num_rows: int
    finished_rows: int
    checkpointed_rows: int
    """Done, but in shards that are not finished."""
    failed_rows: int
    """Finished with an error. finished_rows counts them too."""
    num_shards: int
    finished_shards: int
    rows_per_s: float | None
    """Over the latest commits. None before the second one, or if their times are unknown."""
    idle_s: float | None
    """Seconds since the latest commit or checkpoint. None before the first."""
    sealed: bool
    """The manifest is written: nothing is left to do."""
    skipped_rows: int | None = None
    """Samples that their question did not need, of all rows so far. None if the run needs all."""
    retry_rows: int | None = None
    """Finished rows that wait for a second attempt. None without policy.retry_budget."""

    @property
    def eta_s(self) -> float | None:
        """Seconds until the last row at the present rate, rows that run again included. None if the
        rate is unknown."""
        left = self.num_rows - self.finished_rows + (self.retry_rows or 0)
        if left == 0:
            return 0.0
        return left / self.rows_per_s if self.rows_per_s else None


def read_progress(run_dir: RunDir, now: float) -> Progress:
    """The state of `run_dir` at the Unix time `now` (seconds).

    Raises:
        RunDirError: not a run directory, or not readable.
    """
    fingerprint = run_dir.fingerprint()
    num_rows, shard_rows = fingerprint["num_units"], fingerprint["shard_rows"]
    num_shards = -(-num_rows // shard_rows)
    finished = {s: f for s, f in run_dir.list_shards("rows").items() if s < num_shards}
    started = {s: f for s, f in run_dir.list_shards("checkpoints").items() if s not in finished}
    # A checkpoint may become a finished shard after the listing.
    checkpoints = [run_dir.read_checkpoint(shard) for shard in started]
    rows = {shard: min(shard_rows, num_rows - shard * shard_rows) for shard in finished}
    # A few stores do not say when a file was written.
    written = [i.mtime_ns for i in (*finished.values(), *started.values()) if i.mtime_ns]
    commits = sorted((i.mtime_ns / 1e9, rows[s]) for s, i in finished.items() if i.mtime_ns)
    retry_rows = _num_to_retry(run_dir, fingerprint)
    return Progress(
        num_rows=num_rows,
        finished_rows=sum(rows.values()),
        checkpointed_rows=sum(table.num_rows for table in checkpoints if table is not None),
        failed_rows=sum(1 for _ in run_dir.read_errors()),
        num_shards=num_shards,
        finished_shards=len(finished),
        rows_per_s=_rate(commits[-_RATE_WINDOW:]),
        idle_s=max(0.0, now - max(written) / 1e9) if written else None,
        sealed=run_dir.read_manifest() is not None and not retry_rows,
        retry_rows=retry_rows,
        skipped_rows=_num_skipped(run_dir, checkpoints) if _may_skip(fingerprint) else None,
    )


def rows_to_retry(run_dir: RunDir, grading_kind: str) -> dict[int, int]:
    """How many rows of each finished shard need more room (policy.retry_budget), where any does."""
    counts = {}
    for shard in sorted(run_dir.finished_shards()):
        with run_dir.open_shard(shard) as file:
            rows = read_columns(file, COLUMNS)
        counts[shard] = pc.sum(needs_retry(rows, grading_kind)).as_py() or 0
    return {shard: count for shard, count in counts.items() if count}


def _num_to_retry(run_dir: RunDir, fingerprint: Mapping[str, Any]) -> int | None:
    policy, grading = (fingerprint.get(group) for group in ("policy", "grading"))
    if not (isinstance(policy, Mapping) and isinstance(grading, Mapping)):
        return None
    if policy.get("retry_budget") is None:
        return None
    return sum(rows_to_retry(run_dir, grading["kind"]).values())


def _may_skip(fingerprint: Mapping[str, Any]) -> bool:
    sampling = fingerprint.get("sampling")
    return isinstance(sampling, Mapping) and sampling.get("stop_when") is not None


def _num_skipped(run_dir: RunDir, checkpoints: Iterable[pa.Table | None]) -> int:
    tables = (table for table in checkpoints if table is not None)
    parts = (part["finish_reason"] for part in chain(run_dir.read_rows(["finish_reason"]), tables))
    return sum(pc.sum(pc.equal(part, "skipped")).as_py() or 0 for part in parts)


def _rate(commits: list[tuple[float, int]]) -> float | None:
    """Rows per second over (time, rows) pairs in order. The first pair only starts the clock."""
    if len(commits) < 2 or commits[-1][0] <= commits[0][0]:
        return None
    return sum(rows for _, rows in commits[1:]) / (commits[-1][0] - commits[0][0])
