"""The frontier's figures, from rows whose answers are known."""

import io
import xml.etree.ElementTree as ET

import numpy as np
import pyarrow as pa
import pytest
from rich.console import Console

from dynts_batch.report.frontier.picture import _line, picture
from dynts_batch.report.frontier.points import SCHEMA, Frontier
from dynts_batch.report.frontier.table import table

NUM_QUESTIONS = 200


def rows(policy: str, budget: int | None, share_right: float, seeds: int = 2) -> list[dict]:
    """The first questions are right, in every seed."""
    return [
        {
            "policy": policy,
            "budget": budget,
            "seed": seed,
            "request_id": f"q{question:03d}",
            "sample_index": 0,
            "correct": question < share_right * NUM_QUESTIONS,
            "finish_reason": "stop",
            "prompt_tokens": 10,
            "completion_tokens": 91,
            "evicted_tokens": 0,
            "num_evictions": 0,
            "peak_cache_len": 100 if budget is None else budget,
            "peak_kv_bytes": 800 if budget is None else 2 * budget,
            "cost_usd": 0.04 if budget is None else 0.01,
        }
        for seed in range(seeds)
        for question in range(NUM_QUESTIONS)
    ]


def frontier(*groups: list[dict]) -> Frontier:
    return Frontier.of(pa.Table.from_pylist([row for group in groups for row in group], SCHEMA))


FOUND = frontier(
    rows("full", None, 0.90),
    rows("dynts", 20, 0.70), rows("dynts", 40, 0.89), rows("dynts", 60, 0.90),
    rows("random", 20, 0.69), rows("random", 40, 0.30), rows("random", 60, 0.89),
)  # fmt: skip


def test_accuracy_and_paired_differences_are_means_over_questions() -> None:
    assert FOUND.budgets == [20, 40, 60]
    assert FOUND.policies == ["dynts", "random"]
    point = FOUND.at("random", 40)
    assert point is not None
    assert FOUND.full is not None
    assert point.accuracy == pytest.approx(0.30)
    difference = point.minus(FOUND.full)
    assert difference.mean == pytest.approx(-0.60)
    # Every difference is 0 or -1: the interval is that of a share of 60% in 200 questions.
    assert (difference.low, difference.high) == pytest.approx((-0.67, -0.53), abs=0.02)
    assert difference.num_questions == NUM_QUESTIONS
    assert frontier(rows("a", 20, 0.005)).points[0].interval[0] == 0.0  # an end at 0 is an end


def test_a_budget_is_within_tolerance_if_it_loses_at_most_two_points() -> None:
    assert FOUND.budgets_within_tolerance("dynts") == [40, 60]
    assert FOUND.budgets_within_tolerance("random") == [60]
    just = frontier(rows("full", None, 0.9), rows("a", 20, 0.88), rows("a", 40, 0.1))
    assert just.budgets_within_tolerance("a") == [20]
    assert frontier(rows("a", 20, 0.88)).budgets_within_tolerance("a") == []


def test_a_policy_is_in_front_unless_another_is_better_for_sure() -> None:
    standings = {
        (point.policy, point.budget): FOUND.standing(point)
        for point in FOUND.points
        if point.policy != "full"
    }
    # 1 point of 200 questions may be chance, 59 may not.
    assert standings == {
        ("dynts", 20): "first", ("dynts", 40): "first", ("dynts", 60): "first",
        ("random", 20): "tied", ("random", 40): "behind", ("random", 60): "tied",
    }  # fmt: skip
    assert FOUND.budgets_in_front("random") == [20, 60]
    equal = frontier(rows("a", 20, 0.5), rows("b", 20, 0.5))
    assert [equal.standing(point) for point in equal.points] == ["tied", "tied"]
    alone = frontier(rows("a", 20, 0.5))
    assert alone.standing(alone.points[0]) == "first"


def test_a_row_that_failed_is_wrong_and_stores_nothing() -> None:
    failed = rows("dynts", 20, 1.0, seeds=1)
    for row in failed[:100]:
        row |= {"finish_reason": "error", "correct": False, "peak_cache_len": 0, "peak_kv_bytes": 0}
    point = frontier(failed).points[0]
    assert point.accuracy == pytest.approx(0.5)
    assert (point.stored_tokens, point.stored_bytes) == (20, 40)


def test_a_full_cache_of_which_each_row_failed_is_compared_with_nothing() -> None:
    failed = [
        row | {"finish_reason": "error", "correct": False, "peak_cache_len": 0, "peak_kv_bytes": 0}
        for row in rows("full", None, 1.0)
    ]
    found = frontier(failed, rows("a", 20, 0.5))
    assert found.full is None
    assert any(line.startswith("a 50.0") for line in _shown(found))


def test_a_right_answer_costs_what_all_rows_cost_where_each_has_a_cost() -> None:
    point = FOUND.at("random", 40)
    assert point is not None
    assert point.usd_per_right == pytest.approx(0.01 / 0.3)
    for group in (rows("a", 20, 0.0), [row | {"cost_usd": None} for row in rows("a", 20, 0.5)]):
        assert frontier(group).points[0].usd_per_right is None


def _shown(found: Frontier) -> list[str]:
    file = io.StringIO()
    Console(file=file, width=80).print(table(found))
    return [" ".join(line.split()) for line in file.getvalue().splitlines()]


def test_table_and_picture_show_every_cell() -> None:
    lines = _shown(FOUND)
    assert lines[0].startswith("full cache: 90.0% right [")
    at_40 = lines[lines.index("40 (40% of full)") + 1 :][:2]
    assert at_40[0].startswith("dynts 89.0 10.0 91 0.25 -2.5..+0.7 +52.0..")
    assert at_40[0].endswith("first")
    assert at_40[1].startswith("random 30.0 10.0 91 0.75 -66.5..-53")
    assert at_40[1].endswith("behind")
    assert "dynts 40 40, 60 20, 40, 60" in lines
    assert "random 60 60 20, 60" in lines
    assert {"dynts", "random", "full: 90.0%", "5", "10", "15"} <= _texts(picture(FOUND))


def test_what_few_questions_cannot_show_is_said() -> None:
    """Eight questions with intervals of 32 points named a budget "within 2 points"."""
    few = _shown(frontier(*(its[:8] for its in (rows("full", None, 1.0), rows("dynts", 20, 1.0)))))
    assert "8 questions cannot show 2 points: every interval reaches further down." in few
    many = _shown(frontier(rows("full", None, 0.9), rows("dynts", 20, 0.9)))
    assert not any("cannot show" in line for line in many)
    assert any("by point estimate" in line for line in many)


@pytest.mark.parametrize("policy", ["a", "dynts+predictor=some/long/name+accumulate=false"])
def test_the_tables_of_a_frontier_cut_no_number(policy: str) -> None:
    found = frontier(rows("full", None, 1.0), rows(policy, 20, 0.1), rows("random", 20, 1.0))
    text = "\n".join(_shown(found))
    assert "\u2026" not in text
    difference = found.points[1].minus(found.points[0])
    assert text.count(f"{100 * difference.low:+.1f}..{100 * difference.high:+.1f}") == 2


def _texts(svg: str) -> set[str | None]:
    return {e.text for e in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")}


def test_the_picture_says_once_what_all_policies_share() -> None:
    texts = _texts(picture(frontier(rows("a+x=1+y=2", 20, 0.5), rows("b+x=1", 20, 0.4))))
    assert {"a+y=2", "b"} <= texts
    assert "200 questions; bars: 95% intervals; all policies with x=1" in texts
    alone = _texts(picture(frontier(rows("a+x=1", 20, 0.5), rows("a+x=1", 40, 0.5))))
    assert "a+x=1" in alone
    same = _texts(picture(frontier(rows("a", 20, 0.5), rows("a+x=1", 20, 0.5))))
    assert {"a", "a+x=1"} <= same


def test_a_bar_of_the_picture_is_below_the_full_cache_if_the_policy_loses_for_sure() -> None:
    """Bars of the accuracy itself overlapped the full cache's although all pairs differed."""
    (dynts, random) = (_line(FOUND, policy, policy) for policy in FOUND.policies)
    assert random.intervals is not None
    assert dynts.intervals is not None
    assert random.intervals[0][1] < 0.90
    low, high = dynts.intervals[1]
    assert (low, high) == pytest.approx((0.875, 0.907), abs=0.002)
    assert dynts.points[1] == pytest.approx((10.0, 0.89))


def test_a_part_of_a_frontier_is_shown_too() -> None:
    lines = _shown(frontier(rows("dynts", 20, 0.5)))
    assert lines[0] == "no run with policy full yet"
    assert "dynts 50.0 91 first" in lines
    assert np.isfinite(FOUND.points[0].interval).all()
