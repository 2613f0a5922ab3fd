"""The summary of a run: its rows added up, and the table that is printed at its end.

Reads the run directory only, a batch of rows at a time, so it is the same for a run that ended just
now, one that goes on elsewhere, and one of last year.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console
from rich.table import Table

from dynts_batch.data.run_dir import RunDir
from dynts_batch.report.units import duration, size

_COLUMNS = (
    "finish_reason",
    "correct",
    "prompt_tokens",
    "completion_tokens",
    "peak_cache_len",
    "peak_kv_bytes",
    "device_s",
    "energy_j",
    "cost_usd",
)


@dataclass
class Summary:
    """Sums over the committed rows; a figure of which a part is unknown is None."""

    path: str
    finish_reasons: Counter[str] = field(default_factory=Counter)
    num_graded: int = 0
    num_correct: int = 0
    completion_tokens: int = 0
    stored_tokens: int = 0
    """Sum of every row's peak."""
    full_tokens: int = 0
    """What would have been stored without eviction."""
    peak_kv_bytes: int = 0
    """Of the sequence that held most."""
    device_s: float = 0.0
    energy_j: float | None = 0.0
    cost_usd: float | None = 0.0
    arena_bytes: int | None = None
    """Of the largest worker."""
    worker_times_s: dict[str, tuple[float, float]] = field(default_factory=dict)
    """First and last sample of each worker's telemetry, Unix time."""
    device_peak_bytes: int | None = None
    rss_peak_bytes: int | None = None

    @property
    def num_rows(self) -> int:
        return self.finish_reasons.total()

    @property
    def num_errors(self) -> int:
        return self.finish_reasons["error"]

    @property
    def num_answers(self) -> int:
        """Rows that were run: the failed ones have nothing to count."""
        return self.num_rows - self.num_errors

    @property
    def wall_s(self) -> float:
        """Seconds in which at least one worker worked, all starts of the run together."""
        total_s, until_s = 0.0, 0.0
        for start_s, end_s in sorted(self.worker_times_s.values()):
            total_s += max(0.0, end_s - max(start_s, until_s))
            until_s = max(until_s, end_s)
        return total_s

    def add(self, rows: pa.RecordBatch) -> None:
        """Count `rows`, which have at least the columns of `_COLUMNS`."""
        self.finish_reasons.update(rows["finish_reason"].to_pylist())
        self.num_graded += rows.num_rows - rows["correct"].null_count
        self.num_correct += int(_sum(rows["correct"]))
        run = rows.filter(pc.not_equal(rows["finish_reason"], "error"))
        completion_tokens = int(_sum(run["completion_tokens"]))
        self.completion_tokens += completion_tokens
        self.stored_tokens += int(_sum(run["peak_cache_len"]))
        # The last token of a sequence is never stored: nothing comes after it.
        self.full_tokens += int(_sum(run["prompt_tokens"])) + completion_tokens - run.num_rows
        if run.num_rows:
            self.peak_kv_bytes = max(self.peak_kv_bytes, pc.max(run["peak_kv_bytes"]).as_py())
        self.device_s += _sum(run["device_s"])
        self.energy_j = _sum_or_unknown(self.energy_j, run["energy_j"])
        self.cost_usd = _sum_or_unknown(self.cost_usd, run["cost_usd"])

    def add_telemetry(self, samples: pa.Table) -> None:
        """Take the peaks and the times of a part of a worker's telemetry."""
        worker_id, times = samples["worker_id"][0].as_py(), pc.min_max(samples["time_s"]).as_py()
        former = self.worker_times_s.get(worker_id, (times["min"], times["max"]))
        self.worker_times_s[worker_id] = min(former[0], times["min"]), max(former[1], times["max"])
        for name in ("arena_bytes", "device_peak_bytes", "rss_peak_bytes"):
            found = [
                x for x in (getattr(self, name), pc.max(samples[name]).as_py()) if x is not None
            ]
            setattr(self, name, max(found, default=None))


def summarise(run_dir: RunDir) -> Summary:
    """Add up the committed rows of `run_dir`.

    Raises: RunDirError where it cannot be read.
    """
    summary = Summary(run_dir.path)
    for batch in run_dir.read_rows(_COLUMNS):
        summary.add(batch)
    for samples in run_dir.read_telemetry():
        summary.add_telemetry(samples)
    return summary


def show(summary: Summary, console: Console) -> None:
    """Print the table, and where the files are."""
    console.print(_table(summary))
    # Not in the table: a path that is broken into lines cannot be copied.
    console.print(f"{summary.path}/rows/*.parquet", highlight=False, markup=False, soft_wrap=True)


def _table(summary: Summary) -> Table:
    table = Table(show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _lines(summary):
        table.add_row(name, value)
    return table


def _lines(summary: Summary) -> list[tuple[str, str]]:
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in summary.finish_reasons.items())
    return [
        ("rows", f"{summary.num_rows:,} ({reasons})"),
        ("correct", _of(summary.num_correct, summary.num_graded, "n/a: no row was graded")),
        ("generated tokens", f"{summary.completion_tokens:,}"),
        ("stored / total tokens", _of(summary.stored_tokens, summary.full_tokens, "n/a")),
        ("time", duration(summary.wall_s)),
        ("tokens/s", _speed(summary)),
        ("peak KV per sequence", size(summary.peak_kv_bytes)),
        ("KV arena per worker", _size(summary.arena_bytes)),
        _memory_line(summary),
        ("device hours", f"{summary.device_s / 3600:,.4f}"),
        ("energy", _energy(summary.energy_j)),
        ("cost per answer", _cost(summary.cost_usd, summary.num_answers, "no row was run")),
        (
            "cost per correct answer",
            _cost(summary.cost_usd, summary.num_correct, "none is correct"),
        ),
    ]


def _of(part: int, whole: int, otherwise: str) -> str:
    return f"{part:,} / {whole:,} ({part / whole:.1%})" if whole else otherwise


def _speed(summary: Summary) -> str:
    per_device = _rate(summary.completion_tokens, summary.device_s)
    return f"{_rate(summary.completion_tokens, summary.wall_s)} ({per_device} per busy device)"


def _rate(count: int, seconds: float) -> str:
    return f"{count / seconds:,.1f}" if seconds else "n/a"


def _memory_line(summary: Summary) -> tuple[str, str]:
    if summary.device_peak_bytes is None:
        return "peak memory of a worker", f"{_size(summary.rss_peak_bytes)} host memory (no GPU)"
    return "peak device memory", _size(summary.device_peak_bytes)


def _size(num_bytes: int | None) -> str:
    return "n/a" if num_bytes is None else size(num_bytes)


def _energy(joules: float | None) -> str:
    return "n/a: not measured" if joules is None else f"{joules:,.0f} J ({joules / 3.6e6:,.4f} kWh)"


def _cost(usd: float | None, count: int, no_count: str) -> str:
    if usd is None:
        return "n/a: set cost.usd_per_gpu_hour"
    return f"${usd / count:,.6f}" if count else f"n/a: {no_count}"


def _sum(column: pa.Array) -> int | float:
    total = pc.sum(column).as_py()
    return 0 if total is None else total


def _sum_or_unknown(total: float | None, column: pa.Array) -> float | None:
    if total is None or column.null_count:
        return None
    return total + _sum(column)
