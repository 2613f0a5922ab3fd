"""Laws of the terminal's tables: 80 columns are enough for any number of runs,
and nothing is cut away."""

import io

import pytest
from report_runs import write_run
from rich.console import Console

from dynts_batch.report.comparison.side_by_side import RunColumn
from dynts_batch.report.measures import measure
from dynts_batch.report.run_rows import read_run
from dynts_batch.report.tables import _blocks, show_report

PRICE = "cost.usd_per_gpu_hour=2"


def _report(tmp_path, num_runs: int) -> str:
    """Of runs that differ in budget, price and luck; the last but one is cheapest."""
    paths = []
    for i in range(num_runs):
        rows = [
            {"request_id": f"q{q}", "correct": q >= i,
             "cost_usd": 0.01 if i == num_runs - 2 else 0.5}
            for q in range(20)
        ]  # fmt: skip
        paths.append(
            write_run(tmp_path / f"{i}", rows, overrides=[f"policy.budget={30 + i}", PRICE])
        )
    file = io.StringIO()
    show_report(measure([read_run(path) for path in paths]), Console(file=file, width=80))
    return file.getvalue()


@pytest.mark.parametrize("num_runs", [1, 2, 12])
def test_tables_fit_80_columns_and_cut_nothing(tmp_path, num_runs):
    text = _report(tmp_path, num_runs)
    tables = [line for line in text.splitlines() if set(line) & set("│─") or "  " in line[1:]]
    assert max(map(len, tables)) <= 80
    assert "…" not in text


@pytest.mark.parametrize("width", [60, 80, 81, 100])
@pytest.mark.parametrize("label_length", range(5, 32))
def test_no_value_is_cut_whatever_the_length_of_the_labels(label_length, width):
    """Beside labels of some lengths, rich cut "50.0-100.0" and a word of the head."""
    values = {
        "right answers": "83.3%", "95%": "50.0-100.0", "per million right answers": "$1,234.00",
        "KV memory of full": "100.0%", "judged": "12,345", "tokens/s": "9,999,999",
    }  # fmt: skip
    columns = [RunColumn(name, (value, value)) for name, value in values.items()]
    file = io.StringIO()
    for block in _blocks(["a" * label_length, "b" * label_length], columns, width):
        Console(file=file, width=width).print(block)
    text = file.getvalue()
    assert "\u2026" not in text
    assert all(text.count(value) == 2 for value in values.values())


def test_every_run_has_its_row_in_every_block(tmp_path):
    text = _report(tmp_path, 12)
    rules = sum(set(line) == {"─"} for line in text.splitlines())
    for i in range(12):
        assert sum(line.startswith(f"window {30 + i} ") for line in text.splitlines()) >= rules
    assert (
        "Cheapest right answer: window 40, $0.0200 per right answer, 25 times cheaper than window"
        in text
    )


def test_the_figures_are_in_the_runs_rows(tmp_path):
    lines = _report(tmp_path, 2).splitlines()
    first, second = (
        next(line.split() for line in lines if line.startswith(f"window {b} ")) for b in (30, 31)
    )
    assert first[2:5] == ["100.0%", "83.9-100.0", "$0.0100"]
    assert second[2] == "95.0%"


@pytest.mark.parametrize("num_runs", [1, 2])
def test_an_unfinished_run_says_so_and_claims_no_certainty(tmp_path, num_runs):
    """A run that was stopped after its first rows, all right, read as "100.0%,
    standard error 0.0"."""
    rows = [{"request_id": f"q{q}"} for q in range(8)]
    paths = [write_run(tmp_path / f"{i}", rows, finished=i > 0) for i in range(num_runs)]
    file = io.StringIO()
    show_report(measure([read_run(path) for path in paths]), Console(file=file, width=80))
    text = file.getvalue()
    assert text.count("The run is not finished: 8 of 8 rows are in.") == 1
    assert "standard error 0.0" not in text
    assert ("95% 67.6 to 100.0%," if num_runs == 1 else "67.6-100.0") in text
