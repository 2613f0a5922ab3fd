"""The rows of a run in memory: numbers and ids of all of them, the texts of a few.

A run may have a hundred thousand rows with long texts. So only the short columns of each shard are
read, and later the texts of the rows that are shown. Reads run directories and nothing else.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dynts_batch.config import Config
from dynts_batch.data.run_dir import RunDir
from dynts_batch.data.shard_table import read_columns
from dynts_batch.errors import RunDirError
from dynts_batch.records import NOT_RUN

_SHORT = (
    *("request_id", "sample_index", "finish_reason", "error_type", "extracted_answer", "correct"),
    *(
        "text_matters",
        "prompt_tokens",
        "reasoning_tokens",
        "completion_tokens",
        "evicted_tokens",
        "num_evictions",
    ),
    *("peak_cache_len", "peak_kv_bytes", "full_kv_bytes", "queue_s", "prefill_s", "decode_s"),
    *("device_s", "energy_j", "cost_usd", "worker_id", "attempt"),
    *("num_preemptions", "recomputed_tokens", "forced_end", "first_attempt"),
)
_TEXTS = (
    *("request_id", "sample_index", "prompt", "reasoning", "answer", "extracted_answer"),
    *("reference", "correct", "finish_reason", "error_type", "error_message", "token_trace"),
    *("completion_tokens", "evicted_tokens", "peak_cache_len", "cost_usd"),
)
_NUM_THREADS = 8  # a bucket is slow, but many files take no longer than one


@dataclass(frozen=True)
class RunRows:
    """Everything that a report needs of one run."""

    run_dir: RunDir
    config: Config
    fingerprint: dict[str, Any]
    is_finished: bool
    is_half_regraded: bool
    table: pa.Table
    """The columns `_SHORT` of all committed rows, in the order of the input."""
    telemetry: pa.Table | None
    """All samples of all workers, or None."""
    shards: tuple[int, ...]
    shard_ends: tuple[int, ...]
    """Number of rows in all shards up to and including each one."""
    traced_shards: tuple[int, ...]
    """Positions in `shards` of those with a token_trace."""

    @property
    def num_rows(self) -> int:
        return self.table.num_rows

    @property
    def num_units(self) -> int:
        """Rows of the finished run."""
        return int(self.fingerprint["num_units"])

    def numbers(self, column: str) -> np.ndarray:
        """A numeric column [rows] as float64, null as NaN."""
        values = self.table[column].combine_chunks().cast(pa.float64())
        return values.to_numpy(zero_copy_only=False)

    def generated_tokens(self) -> np.ndarray:
        """Of all attempts of each row [rows]."""
        first = pc.struct_field(self.table["first_attempt"], "completion_tokens")
        tokens = pc.add(self.table["completion_tokens"], pc.fill_null(first, 0))
        return tokens.combine_chunks().cast(pa.float64()).to_numpy(zero_copy_only=False)

    def is_run(self) -> np.ndarray:
        """Which rows were run [rows]: all but error rows and skipped ones."""
        is_not_run = pc.is_in(self.table["finish_reason"], pa.array(NOT_RUN))
        return ~is_not_run.combine_chunks().to_numpy(zero_copy_only=False)

    def is_equal(self, column: str, value: str) -> np.ndarray:
        """Which rows have `value` in `column` [rows]. Null equals nothing."""
        equal = pc.fill_null(pc.equal(self.table[column], value), fill_value=False)
        return equal.combine_chunks().to_numpy(zero_copy_only=False)

    def texts(self, rows: Iterable[int]) -> dict[int, dict[str, Any]]:
        """The columns `_TEXTS` of `rows`, which are positions in `table`."""
        wanted: dict[int, list[int]] = {}
        for row in rows:
            wanted.setdefault(bisect_right(self.shard_ends, row), []).append(row)
        found: dict[int, dict[str, Any]] = {}
        for position, its_rows in wanted.items():
            table = _read(self.run_dir, self.shards[position], _TEXTS)
            first = self.shard_ends[position] - table.num_rows
            picked = table.take([row - first for row in its_rows]).to_pylist()
            found |= dict(zip(its_rows, picked, strict=True))
        return found

    def traced_rows(self, count: int) -> list[int]:
        """Positions of up to `count` rows with a token_trace, spread over the run's shards."""
        stride = max(1, len(self.traced_shards) // count)
        rows: list[int] = []
        for position in self.traced_shards[::stride]:
            table = _read(self.run_dir, self.shards[position], ["token_trace"])
            first = self.shard_ends[position] - table.num_rows
            rows += (first + np.flatnonzero(table["token_trace"].is_valid().to_numpy())).tolist()
            if len(rows) >= count:
                break
        return rows[:count]


def read_run(path: str) -> RunRows:
    """Read the rows of a run directory.

    Raises: RunDirError if `path` is no run directory with rows, or cannot be read.
    """
    run_dir = RunDir(path)
    fingerprint = run_dir.fingerprint()
    shards = sorted(run_dir.finished_shards())
    if not shards:
        raise RunDirError(f"{path} has no rows yet")
    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        scanned = list(pool.map(lambda shard: _scan(run_dir, shard), shards))
    tables = [table for table, _ in scanned]
    parts = list(run_dir.read_telemetry(skip_damaged=True))
    return RunRows(
        run_dir=run_dir,
        config=run_dir.config(),
        fingerprint=fingerprint,
        is_finished=run_dir.read_manifest() is not None,
        is_half_regraded=run_dir.is_regrading(),
        table=pa.concat_tables(tables),
        telemetry=pa.concat_tables(parts) if parts else None,
        shards=tuple(shards),
        shard_ends=tuple(accumulate(table.num_rows for table in tables)),
        traced_shards=tuple(i for i, (_, is_traced) in enumerate(scanned) if is_traced),
    )


def _scan(run_dir: RunDir, shard: int) -> tuple[pa.Table, bool]:
    """The short columns of a shard, and whether it has a token_trace."""
    with run_dir.open_shard(shard) as file:
        return read_columns(file, _SHORT), _has_values(file, "token_trace")


def _read(run_dir: RunDir, shard: int, names: Sequence[str]) -> pa.Table:
    with run_dir.open_shard(shard) as file:
        return read_columns(file, names)


def _has_values(file: pq.ParquetFile, column: str) -> bool:
    """Whether `column` exists and is not all null, by the file's statistics. No row is read."""
    for group in range(file.metadata.num_row_groups):
        for leaf in range(file.metadata.num_columns):
            chunk = file.metadata.row_group(group).column(leaf)
            if chunk.path_in_schema.partition(".")[0] != column:
                continue
            if not chunk.is_stats_set or chunk.statistics.null_count < chunk.num_values:
                return True
    return False
