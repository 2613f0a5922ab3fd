"""Laws of a run's totals: they add up what the rows and samples say, in any cut,
and guess nothing."""

import io

import pyarrow as pa
import pytest
from report_runs import ERROR_ROW, ROW, SAMPLE, SCHEMA_OF_ROWS, config_of, write_run
from rich.console import Console

from dynts_batch.data.readers.samples import SCHEMA
from dynts_batch.data.run_dir import RunDir
from dynts_batch.report.lines import Line, cost_lines, end_lines, work_lines
from dynts_batch.report.measures import measure
from dynts_batch.report.run_rows import read_run
from dynts_batch.report.tables import show_end
from dynts_batch.report.totals import COLUMNS, Totals, add_up

_SCHEMA = pa.schema([SCHEMA_OF_ROWS.field(name) for name in COLUMNS])


def _totals(*rows: dict, telemetry: tuple[pa.Table, ...] = ()) -> Totals:
    """Of `rows` (changes to ROW), one batch each: batches must not matter."""
    batches = [
        pa.RecordBatch.from_pylist([{name: (ROW | row).get(name) for name in COLUMNS}], _SCHEMA)
        for row in rows
    ]
    return Totals.of(config_of("runs/r1"), batches, telemetry)


def _samples(worker_id: str, times_s: list[float], **columns: int | None) -> pa.Table:
    rows = [SAMPLE | columns | {"worker_id": worker_id, "time_s": time_s} for time_s in times_s]
    return pa.Table.from_pylist(rows, SCHEMA)


def _text(totals: Totals) -> str:
    file = io.StringIO()
    show_end(totals, "runs/r1", Console(file=file, width=80))
    return file.getvalue()


def _line(totals: Totals, name: str) -> tuple[str, str]:
    """Value and note, wherever they are told."""
    lines = [*end_lines(totals), *cost_lines(totals), *work_lines(totals)]
    (found,) = {(line.value, line.note) for line in lines if line.name == name}
    return found


def test_concurrency_and_its_arena_are_of_one_worker():
    """Rows that ran again had a larger arena, which held fewer."""
    first = _samples("w-0", [0.0, 9.0], num_running=8, arena_bytes=1_000)
    second = _samples("w-1", [9.0, 12.0], num_running=1, arena_bytes=9_000)
    device = _totals({}, telemetry=(first, second)).device
    assert device is not None
    assert (device.peak_running, device.arena_bytes) == (8, 1_000)


def test_the_price_of_the_time_held_is_known_of_all_starts_or_not():
    priced = _samples("w-0", [0.0, 9.0], cost_usd=2.0)
    assert _totals({}, telemetry=(priced,)).held_usd == 2.0
    assert _totals({}, telemetry=(priced, _samples("w-1", [9.0, 12.0]))).held_usd is None


def test_what_a_first_attempt_took_counts_even_if_the_second_one_failed():
    first = {"completion_tokens": 100, "device_s": 1.0, "energy_j": 2.0, "cost_usd": 3.0}
    failed = ERROR_ROW | {"device_s": 1.5, "energy_j": 2.5, "cost_usd": 3.5}
    alone, both = _totals({}), _totals({}, failed | {"first_attempt": first})
    assert both.num_errors == 1
    assert both.completion_tokens == alone.completion_tokens + 100
    assert both.device_s == alone.device_s + 1.5
    assert both.joules.total == alone.joules.total + 2.5
    assert both.dollars.total == alone.dollars.total + 3.5


@pytest.mark.parametrize(
    ("override", "note"),
    [
        ("cost.usd_per_gpu_hour=null", "set cost.usd_per_gpu_hour or cost.usd_per_kwh"),
        ("cost.usd_per_gpu_hour=2", "some rows are from before the price was set"),
        ("cost.usd_per_kwh=.3", "cost.usd_per_kwh is set, and the energy of some rows was not"),
    ],
)
def test_why_there_is_no_cost(override, note):
    config = config_of("runs/r1", [override])
    totals = Totals(config, num_judged=0)
    totals.finish_reasons["stop"] = 1
    totals._sums["cost_usd"] = None
    (line,) = [line for line in cost_lines(totals) if line.name == "cost"]
    assert line.value == "n/a"
    assert line.note.startswith(note)


def test_the_lines_follow_from_the_rows():
    totals = _totals({}, {"correct": False, "peak_kv_bytes": 5_000}, ERROR_ROW)
    assert _line(totals, "rows") == ("3", "2 stop, 1 error")
    assert _line(totals, "right answers") == ("50.0%", "1 of 2 judged")
    assert _line(totals, "generated tokens") == ("182", "")
    assert _line(totals, "stored tokens")[0] == "30"
    assert totals.mean_full_tokens == 100
    assert totals.stored_share == pytest.approx(0.4)
    assert _line(totals, "peak KV of a sequence")[0] == "3.9 KiB"
    assert _line(totals, "energy per answer") == ("6 J", "")
    assert _line(totals, "cost per answer") == ("$0.250", "")
    assert _line(totals, "cost per right answer")[0] == "$0.500"
    end = "\nruns/r1/rows/*.parquet\ndynts-batch report runs/r1 --open\n"
    assert _text(totals).endswith(end)


def test_the_end_names_the_errors_of_failed_rows_and_what_to_do():
    killed = ERROR_ROW | {"error_type": "QuarantinedError"}
    text = _text(_totals({}, killed, ERROR_ROW, ERROR_ROW))
    assert "3 rows failed: 2 BadRowError, 1 QuarantinedError." in text
    assert "runs/r1/errors/*.jsonl says why of each; run.retry_failed=true runs them again." in text
    assert "failed:" not in _text(_totals({}))


def test_a_failed_row_counts_as_a_row_and_in_nothing_else():
    with_error, without = _totals({}, ERROR_ROW), _totals({})
    assert with_error.num_errors == 1
    for name in ("num_answers", "num_judged", "mean_full_tokens", "dollars", "joules", "device_s"):
        assert getattr(with_error, name) == getattr(without, name), name


def test_one_unknown_price_or_energy_makes_the_sum_unknown():
    totals = _totals({}, {"cost_usd": None, "energy_j": None}, {})
    assert _line(totals, "energy") == ("n/a", "not measured: no NVML counter")
    assert _line(totals, "cost")[0] == "n/a"
    assert totals.dollars.per_answer is None


def test_what_has_no_meaning_is_said_to_have_none():
    totals = _totals({"correct": None})
    assert _line(totals, "right answers") == ("n/a", "no row was judged")
    assert _line(totals, "cost per right answer")[0] == "n/a"
    failed = _totals(ERROR_ROW)
    assert _line(failed, "stored tokens")[0] == "n/a"
    assert _line(failed, "tokens/s")[0] == "n/a"
    assert _line(failed, "cost") == ("n/a", "no row was run")


@pytest.mark.parametrize(("peak_bytes", "shown"), [(None, "n/a"), (3 * 2**30, "3.0 GiB")])
def test_memory_is_the_gpus_or_labelled_as_the_hosts(peak_bytes, shown):
    parts = [
        _samples("w", [0.0], device_peak_bytes=peak_bytes, rss_peak_bytes=rss)
        for rss in (2**31, 2**30)
    ]
    totals = _totals({}, telemetry=tuple(parts))
    assert _line(totals, "peak device memory")[0] == shown
    assert _line(totals, "peak host memory")[0] == "2.0 GiB"


def test_time_is_when_any_worker_worked_and_the_nights_between_starts_do_not_count():
    totals = _totals(
        {},
        telemetry=(
            _samples("a-0", [100.0, 105.0]),
            _samples("a-1", [120.0, 140.0]),  # beside it
            _samples("a-0", [110.0, 130.0]),  # its next part
            _samples("b-0", [9000.0, 9010.0]),  # the next morning
        ),
    )
    assert totals.device.wall_s == pytest.approx(40 + 10)
    assert totals.device.held_s == pytest.approx(30 + 20 + 10)
    assert _line(totals, "time")[0] == "0:50"
    assert totals.tokens_per_s == pytest.approx(91 / 50)


def test_the_end_of_a_run_is_read_at_one_glance():
    """With all that can be said of one: energy, a failed row, an arena that shrank, and an answer
    that would be judged otherwise."""
    shrunk = _samples("a", [0.0], max_seqs=2), _samples("a", [1.0], max_seqs=1)
    totals = _totals({"text_matters": True}, {"correct": False}, ERROR_ROW, telemetry=shrunk)
    text = _text(totals)
    for part in ("grading.text", "energy per right answer", "arena shrunk to", "1 row failed:"):
        assert part in text
    lines = text.splitlines()
    assert len(lines) <= 14
    names = [line.split("  ")[0].strip() for line in lines]
    assert set(names) >= {line.name for line in end_lines(totals)}


def test_loading_is_held_and_is_no_time_of_the_tokens():
    loading = _samples("a", [100.0, 160.0], num_steps=0)
    # Its busy time may stay 0: a fake engine's steps take none.
    work = _samples("a", [165.0, 200.0], num_steps=9)
    totals = _totals({}, telemetry=(loading, work))
    assert (totals.device.held_s, totals.device.wall_s) == (100.0, 40.0)
    assert totals.tokens_per_s == ROW["completion_tokens"] / 40


def test_the_end_of_a_run_and_its_report_say_the_same(tmp_path):
    rows = [
        {"request_id": f"q{i}", "correct": i % 3 > 0, "completion_tokens": 40 + i} for i in range(9)
    ]
    parts = [SAMPLE | {"time_s": 1_000.0 + 7 * i, "busy_s": 5.0 * i} for i in range(4)]
    path = write_run(tmp_path / "run", rows, parts, shard_rows=2)
    end, report = add_up(RunDir(path)), measure([read_run(path)])[0].totals
    assert end.crossover is not None
    assert end.crossover == report.crossover
    assert end == report


@pytest.mark.parametrize(
    ("matters", "note"),
    [
        ([True, False, True], "2 rows would be judged otherwise by completion"),
        ([False, False, True], "1 row would be judged otherwise by completion"),
        ([None, False, False], "0 rows would be judged otherwise by completion; known of 2 of 3"),
    ],
)
def test_what_was_read_is_named_and_how_many_rows_that_decides(matters, note):
    totals = _totals(*({"text_matters": value} for value in matters))
    assert Line("grading.text", "answer", note) in end_lines(totals)
    assert "grading.text" not in [line.name for line in end_lines(_totals({"correct": None}))]
