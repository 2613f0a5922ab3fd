"""Laws of what a report says of cut thinking, ended loops and second attempts."""

import io

import pytest
from report_runs import ERROR_ROW, ROW, write_run
from rich.console import Console

from dynts_batch.report.endings.lines import endings_lines
from dynts_batch.report.measures import measure
from dynts_batch.report.run_rows import read_run
from dynts_batch.report.tables import show_report
from dynts_batch.report.totals import Totals, add_up

WRONG = {"correct": False, "answer": None, "extracted_answer": None}
FIRST = {
    "finish_reason": "length", "correct": False, "budget": 30, "completion_tokens": 100,
    "device_s": 0.5, "energy_j": 2.0, "cost_usd": 0.05,
}  # fmt: skip


def _totals(tmp_path, rows, *overrides) -> Totals:
    rows = [row | {"request_id": f"q{number}"} for number, row in enumerate(rows)]
    write_run(tmp_path / "run", rows, overrides=overrides)
    return add_up(read_run(str(tmp_path / "run")).run_dir)


def _lines(totals) -> dict[str, tuple[str, str]]:
    return {line.name: (line.value, line.note) for line in endings_lines(totals)}


def test_a_run_that_ends_by_itself_says_nothing_of_it(tmp_path):
    assert _lines(_totals(tmp_path, [{}, WRONG, ERROR_ROW])) == {}


def test_cut_thinking_says_how_much_of_it_is_right(tmp_path):
    rows = [{"forced_end": "budget"}, {"forced_end": "budget", **WRONG}, {}, ERROR_ROW]
    lines = _lines(_totals(tmp_path, rows, "sampling.max_thinking_tokens=70"))
    assert lines == {
        "thinking cut": ("2 rows", "by sampling.max_thinking_tokens=70; 50.0% of them right")
    }


def test_loops_are_priced_as_if_each_were_paid_to_the_limit_and_none_were_right(tmp_path):
    """Four rows of $0.25 and 91 tokens. The two loops would have generated 9 more each, of 364."""
    loops = [{"forced_end": "loop"}, {"finish_reason": "loop", **WRONG}]
    lines = _lines(_totals(tmp_path, [*loops, {}, {}]))
    assert lines["loops ended"][0] == "2 rows"
    assert "50.0% of them right; at most 18 more tokens" in lines["loops ended"][1]
    value, note = lines["cost per right answer, loops paid"]
    assert note == "at most, for 2 right answers"
    assert float(value.removeprefix("$")) == pytest.approx((1 + 18 / 364) / 2, abs=1e-3)


def test_second_attempts_are_priced_beside_the_run_without_them(tmp_path):
    again = [{"first_attempt": FIRST}, {"first_attempt": FIRST, **WRONG}]
    totals = _totals(tmp_path, [*again, {}, {}], "policy.retry_budget=60")
    assert totals.completion_tokens == 4 * ROW["completion_tokens"] + 200
    assert _lines(totals) == {
        "run again": ("2 rows", "policy.retry_budget=60 after 30; 1 of them right, before 0"),
        "cost of running again": ("$0.400", "40.0% of all; $0.400 per right answer gained"),
        "cost per right answer without": ("$0.300", "2 right answers"),
    }


def test_nothing_is_said_of_first_attempts_that_later_rules_did_not_judge(tmp_path):
    """`grade` judges what is stored: the second answers. A first attempt that failed was wrong by
    any rules."""
    failed = FIRST | {"correct": None, "finish_reason": "error"}
    rows = [{"first_attempt": failed}, {"first_attempt": FIRST, **WRONG}]
    lines = _lines(_totals(tmp_path / "known", rows, "policy.retry_budget=60"))
    assert lines["run again"][1].endswith("1 of them right, before 0")
    rows = [{"first_attempt": FIRST | {"correct": None}}, {"first_attempt": FIRST, **WRONG}]
    lines = _lines(_totals(tmp_path / "unknown", rows, "policy.retry_budget=60"))
    assert lines["run again"][1].endswith("1 of them right")
    assert lines["cost of running again"] == ("$0.400", "80.0% of all")
    assert "cost per right answer without" not in lines


def test_runs_side_by_side_count_what_each_has_cut_and_run_again(tmp_path):
    paths = [
        write_run(tmp_path / "plain", [{}, {"request_id": "q1"}]),
        write_run(
            tmp_path / "again",
            [{"first_attempt": FIRST}, {"request_id": "q1"}],
            overrides=["policy.retry_budget=60"],
        ),
    ]
    file = io.StringIO()
    show_report(measure([read_run(path) for path in paths]), Console(file=file, width=200))
    assert "run again" in file.getvalue()
    assert "thinking cut" not in file.getvalue()
