"""Laws of comparing runs: on shared questions only, and what is left out is counted."""

import re
from html import escape

import pytest
from report_runs import ERROR_ROW, write_run

from dynts_batch.report.comparison.pairs import compare_runs, pairs_to_show
from dynts_batch.report.comparison.settings import settings_text
from dynts_batch.report.comparison.side_by_side import conclusion
from dynts_batch.report.lines import comparison_text
from dynts_batch.report.measures import Measures, measure
from dynts_batch.report.page.page import render_page
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


def test_the_settings_that_differ_are_named_with_their_values_beside_policy_and_budget(tmp_path):
    """Runs of keep_ratio 0.4 and null, or of two models, were "window 30" and "window 31"."""
    settings = [
        ["policy.keep_ratio=0.4", "model.name=my model", "run.shard_rows=8"],
        ["policy.budget=31", "model.name=b"],
        ["policy.name=thinkv", "policy.quantize=int4", "model.name=b"],
    ]
    runs = measure(
        [
            read_run(write_run(tmp_path / str(i), [{}], overrides=overrides))
            for i, overrides in enumerate(settings)
        ]
    )
    text = settings_text(runs[:2])
    assert "policy.keep_ratio 0.4, null" in text
    assert 'model.name "my model", b' in text
    assert not {"budget", "shard_rows", "window_size"} & set(re.findall(r"\w+", text))
    assert "policy.quantize false, int4" in settings_text(runs[1:])
    assert settings_text([runs[0], runs[0]]) is None
    assert escape(text, quote=True).replace("&quot;", "&#34;") in render_page(runs[:2])


@pytest.mark.parametrize("policies", [["full", "window"], ["window", "full"], ["window", "window"]])
def test_the_conclusion_and_the_list_of_pairs_subtract_the_same_way(tmp_path, policies):
    """One said "+98.0 points against it", the other "minus dynts 200: -98.0"."""
    runs = measure(
        [
            read_run(
                write_run(
                    tmp_path / str(i),
                    [{"request_id": f"q{q}", "correct": q < 3 + 5 * i} for q in range(8)],
                    overrides=[f"policy.name={policy}", f"policy.budget={30 + i}"],
                )
            )
            for i, policy in enumerate(policies)
        ]
    )
    (pair,) = pairs_to_show(runs)
    assert f"Right answers, {pair.names}: {comparison_text(pair.found)}." in conclusion(runs)
    if "full" in policies:
        assert pair.names == "window 30 minus full" or pair.names == "window 31 minus full"
