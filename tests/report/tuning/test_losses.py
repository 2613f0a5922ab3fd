"""Laws of one question's loss."""

import math

import pytest

from dynts_batch.config import GradingConfig
from dynts_batch.report.tuning.losses import Disagreement, graded_loss


def row(index, *, correct=None, answer=None, reason="stop"):
    return {
        "sample_index": index,
        "correct": correct,
        "extracted_answer": answer,
        "finish_reason": reason,
    }


def graded(*judgements):
    return [row(i, correct=correct) for i, correct in enumerate(judgements)]


@pytest.mark.parametrize(
    ("full", "candidate", "loss"),
    [
        ([True], [False], 1.0),
        ([False], [True], -1.0),
        ([True], [True], 0.0),
        ([True, True, False, False], [True, False, False, False], 0.25),
        ([True], [None], 1.0),  # the candidate's failed: that is not right
    ],
)
def test_a_graded_loss_is_the_difference_of_the_shares_right(full, candidate, loss):
    assert graded_loss(graded(*full), graded(*candidate)) == loss


def test_a_question_that_the_full_cache_has_no_judgement_of_says_nothing():
    assert math.isnan(graded_loss(graded(None), graded(True)))


@pytest.fixture(scope="module")
def disagreement():
    with Disagreement(GradingConfig()) as found:
        yield found


@pytest.mark.parametrize(
    ("full", "candidate", "loss"),
    [
        ("5", "5", 0.0),
        ("5", "5.0", 0.0),
        ("x^2+1", "1", 1.0),
        ("x^2+1", "1+x^2", 0.0),
        ("5", "6", 1.0),
        ("5", None, 1.0),
    ],
)
def test_without_references_an_answer_that_differs_is_lost(disagreement, full, candidate, loss):
    assert disagreement([row(0, answer=full)], [row(0, answer=candidate)]) == loss


def test_samples_are_compared_by_index_and_failed_ones_of_the_full_cache_left_out(disagreement):
    full = [row(0, answer="1"), row(1, answer="2"), row(2, reason="error")]
    assert disagreement(full, [row(1, answer="2"), row(0, answer="2"), row(2, answer="9")]) == 0.5
    assert disagreement(full, [row(0, answer="1")]) == 0.5  # a sample that is not there differs
    assert math.isnan(disagreement([row(0, reason="error")], [row(0, answer="1")]))


def test_where_the_full_cache_found_no_answer_nothing_is_kept_or_lost(disagreement):
    """So a tuning whose questions have no final answers is refused, and not certified."""
    assert math.isnan(disagreement([row(0, answer=None)], [row(0, answer="5")]))
    full = [row(0, answer=None), row(1, answer="2")]
    assert disagreement(full, [row(0, answer="9"), row(1, answer="3")]) == 1.0


def test_disagreement_bounds_the_accuracy_that_is_lost_whatever_the_references(disagreement):
    for reference in "123":
        full, candidate = ["1", "2", "3"], ["1", "3", "3"]
        rows = [
            [row(i, answer=a, correct=a == reference) for i, a in enumerate(answers)]
            for answers in (full, candidate)
        ]
        assert graded_loss(*rows) <= disagreement(*rows)
