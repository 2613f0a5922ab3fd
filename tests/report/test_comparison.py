"""Laws of comparing runs: on shared questions only, and what is left out is counted."""

import pytest
from report_runs import ERROR_ROW, write_run

from dynts_batch.report.comparison.pairs import compare_runs, pairs_to_show
from dynts_batch.report.lines import comparison_text
from dynts_batch.report.measures import Measures, measure
from dynts_batch.report.run_rows import read_run


def _run(path, verdicts: dict[str, bool | None]) -> Measures:
    rows = [
        {"request_id": name, "correct": correct}
        if correct is not None
        else ERROR_ROW | {"request_id": name, "correct": None}
        for name, correct in verdicts.items()
    ]
    return measure([read_run(write_run(path, rows))])[0]


def test_only_questions_that_both_judged_are_compared(tmp_path):
    a = _run(tmp_path / "a", {"1": True, "2": False, "3": True, "4": None, "only a": False})
    b = _run(tmp_path / "b", {"3": False, "2": True, "1": True, "4": True})
    pair = compare_runs(a, b)
    assert pair.found.difference.num_questions == 3
    assert (pair.found.num_better, pair.found.num_worse) == (1, 1)
    assert pair.found.difference.mean == pytest.approx(0.0)
    assert pair.num_left_out == 2
    assert pair.found.p_value == 1.0


def test_a_clear_winner_is_called_one(tmp_path):
    a = _run(tmp_path / "a", {str(i): i % 2 == 0 for i in range(100)})
    b = _run(tmp_path / "b", {str(i): True for i in range(100)})
    text = comparison_text(compare_runs(a, b).found)
    assert text.startswith("+50.0 points [+40.")
    assert text.endswith("50 better, 0 worse; p < 0.0001")


def test_runs_without_a_shared_question_are_not_compared(tmp_path):
    pair = compare_runs(_run(tmp_path / "a", {"1": True}), _run(tmp_path / "b", {"2": True}))
    assert pair.found is None
    assert comparison_text(pair.found).startswith("n/a")


def test_every_two_runs_are_compared_once(tmp_path):
    runs = [_run(tmp_path / name, {"1": True}) for name in "abc"]
    assert [(pair.a, pair.b) for pair in pairs_to_show(runs)] == [
        (runs[0], runs[1]), (runs[0], runs[2]), (runs[1], runs[2]),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("policies", "base"), [(["window"] * 12, 0), (["window"] * 9 + ["full"], 9)]
)
def test_many_runs_are_each_compared_with_the_full_cache_or_else_the_first(
    tmp_path, policies, base
):
    paths = [
        write_run(tmp_path / str(i), [{}], overrides=[f"policy.name={policy}"])
        for i, policy in enumerate(policies)
    ]
    runs = [measure([read_run(path)])[0] for path in paths]
    pairs = pairs_to_show(runs)
    assert {pair.a for pair in pairs} == {runs[base]}
    assert [pair.b for pair in pairs] == [run for i, run in enumerate(runs) if i != base]
