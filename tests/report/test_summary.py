"""Laws of the summary: it adds up what the rows say, and guesses nothing."""

import io

import pyarrow as pa
import pytest
from rich.console import Console

from dynts_batch.report.summary import Summary, show

_ROW = {
    "finish_reason": "stop",
    "correct": True,
    "prompt_tokens": 10,
    "completion_tokens": 91,
    "peak_cache_len": 30,
    "peak_kv_bytes": 3000,
    "device_s": 1800.0,
    "energy_j": 1.8e6,
    "cost_usd": 0.5,
}
_SCHEMA = pa.schema(
    [
        ("finish_reason", pa.string()),
        ("correct", pa.bool_()),
        *[(name, pa.int64()) for name in list(_ROW)[2:6]],
        *[(name, pa.float64()) for name in list(_ROW)[6:]],
    ]
)
_FAILED = _ROW | dict.fromkeys(list(_ROW)[2:6], 0) | {
    "finish_reason": "error", "correct": None, "device_s": 0.0, "energy_j": 0.0, "cost_usd": 0.0,
}  # fmt: skip


def _summary(*rows: dict) -> Summary:
    summary = Summary("runs/r1")
    for row in rows:  # one batch each: batches must not matter
        summary.add(pa.RecordBatch.from_pylist([row], schema=_SCHEMA))
    return summary


def _text(summary: Summary) -> str:
    file = io.StringIO()
    show(summary, Console(file=file, width=80))
    return file.getvalue()


def _line(summary: Summary, name: str) -> str:
    (line,) = [line for line in _text(summary).splitlines() if line.startswith(f"│ {name} ")]
    return line.split("│")[2].strip()


def test_the_lines_follow_from_the_rows():
    summary = _summary(_ROW, _ROW | {"correct": False, "peak_kv_bytes": 4096}, _FAILED)
    assert _line(summary, "rows") == "3 (2 stop, 1 error)"
    assert _line(summary, "correct") == "1 / 2 (50.0%)"
    assert _line(summary, "generated tokens") == "182"
    assert _line(summary, "stored / total tokens") == "60 / 200 (30.0%)"
    assert _line(summary, "tokens/s") == "n/a (0.1 per busy device)"
    assert _line(summary, "peak KV per sequence") == "4.0 KiB"
    assert _line(summary, "device hours") == "1.0000"
    assert _line(summary, "energy") == "3,600,000 J (1.0000 kWh)"
    assert _line(summary, "cost per answer") == "$0.500000"
    assert _line(summary, "cost per correct answer") == "$1.000000"
    assert _text(summary).endswith("\nruns/r1/rows/*.parquet\n")


def test_a_failed_row_counts_as_a_row_and_in_nothing_else():
    assert _summary(_ROW, _FAILED).full_tokens == _summary(_ROW).full_tokens
    assert _summary(_ROW, _FAILED).num_graded == 1
    assert _summary(_ROW, _FAILED).num_answers == 1


def test_one_unknown_price_or_energy_makes_the_sum_unknown():
    summary = _summary(_ROW, _ROW | {"cost_usd": None, "energy_j": None}, _ROW)
    assert _line(summary, "energy") == "n/a: not measured"
    assert _line(summary, "cost per answer") == "n/a: set cost.usd_per_gpu_hour"


def test_what_has_no_meaning_is_said_to_have_none():
    summary = _summary(_ROW | {"correct": None})
    assert _line(summary, "correct") == "n/a: no row was graded"
    assert _line(summary, "cost per correct answer") == "n/a: none is correct"
    failed = _summary(_FAILED)
    assert _line(failed, "stored / total tokens") == "n/a"
    assert _line(failed, "tokens/s") == "n/a (n/a per busy device)"
    assert _line(failed, "cost per answer") == "n/a: no row was run"


def _samples(worker_id: str, times_s: list[float], **columns: int | None) -> pa.Table:
    values = {"arena_bytes": 5, "device_peak_bytes": None, "rss_peak_bytes": 7} | columns
    table = {name: pa.array([value] * len(times_s), pa.int64()) for name, value in values.items()}
    return pa.table({"worker_id": [worker_id] * len(times_s), "time_s": times_s, **table})


@pytest.mark.parametrize(
    ("peak_bytes", "name", "value"),
    [
        (None, "peak memory of a worker", "2.0 GiB host memory (no GPU)"),
        (3 * 2**30, "peak device memory", "3.0 GiB"),
    ],
)
def test_memory_is_the_gpus_or_labelled_as_the_hosts(peak_bytes, name, value):
    summary = _summary(_ROW)
    for rss_bytes in (2 * 2**30, 2**30):
        columns = {"device_peak_bytes": peak_bytes, "rss_peak_bytes": rss_bytes}
        summary.add_telemetry(_samples("w", [0.0], **columns))
    assert _line(summary, name) == value


def test_time_is_when_any_worker_worked_and_the_nights_between_starts_do_not_count():
    summary = _summary(_ROW)
    summary.add_telemetry(_samples("a-0", [100.0, 105.0]))
    summary.add_telemetry(_samples("a-0", [110.0, 130.0]))  # its next part
    summary.add_telemetry(_samples("a-1", [120.0, 140.0]))  # beside it
    summary.add_telemetry(_samples("b-0", [9000.0, 9010.0]))  # the next morning
    assert summary.wall_s == pytest.approx(40 + 10)
    assert _line(summary, "time") == "0:50"
    assert _line(summary, "tokens/s") == "1.8 (0.1 per busy device)"
