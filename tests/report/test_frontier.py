"""The frontier's figures, from rows whose answers are known."""

import xml.etree.ElementTree as ET

import numpy as np
import pyarrow as pa
import pytest
from rich.console import Console

from dynts_batch.report.frontier import SCHEMA, Frontier, picture, table

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
    cell = FOUND.at("random", 40)
    assert cell is not None
    assert FOUND.full is not None
    assert cell.accuracy == pytest.approx(0.30)
    difference = cell.minus(FOUND.full)
    assert difference.mean == pytest.approx(-0.60)
    # Every difference is 0 or -1: the interval is that of a share of 60% in 200 questions.
    assert (difference.low, difference.high) == pytest.approx((-0.67, -0.53), abs=0.02)
    assert difference.num_questions == NUM_QUESTIONS


def test_the_smallest_budget_is_the_first_from_which_on_two_points_are_not_lost() -> None:
    assert FOUND.smallest_budget("dynts") == 40
    assert FOUND.smallest_budget("random") == 60
    assert (
        frontier(rows("full", None, 0.9), rows("a", 20, 0.9), rows("a", 40, 0.1)).smallest_budget(
            "a"
        )
        is None
    )


def test_a_policy_is_first_unless_the_best_is_better_for_sure() -> None:
    assert [FOUND.is_first(FOUND.at("dynts", budget)) for budget in (20, 40, 60)] == [True] * 3
    # 1 point of 200 questions may be chance, 59 may not.
    assert [FOUND.is_first(FOUND.at("random", budget)) for budget in (20, 40, 60)] == [
        True, False, True,
    ]  # fmt: skip


def test_a_row_that_failed_is_wrong_and_stores_nothing() -> None:
    failed = rows("dynts", 20, 1.0, seeds=1)
    for row in failed[:100]:
        row |= {"finish_reason": "error", "correct": False, "peak_cache_len": 0}
    cell = frontier(failed).cells[0]
    assert cell.accuracy == pytest.approx(0.5)
    assert cell.stored_tokens == 20


def test_table_and_picture_show_every_cell() -> None:
    console = Console(width=200, record=True)
    console.print(table(FOUND))
    text = console.export_text()
    assert "full cache: 90.0% right, 100 stored tokens" in text
    assert "30.0  [-66.5 -53" in text
    assert "40 (40%)" in text
    root = ET.fromstring(picture(FOUND))
    assert {"dynts", "random", "full"} <= {
        e.text for e in root.iter("{http://www.w3.org/2000/svg}text")
    }


def test_a_part_of_a_frontier_is_shown_too() -> None:
    console = Console(width=200, record=True)
    console.print(table(frontier(rows("dynts", 20, 0.5))))
    assert "no run with policy full yet" in console.export_text()
    assert np.isfinite(FOUND.cells[0].interval).all()
