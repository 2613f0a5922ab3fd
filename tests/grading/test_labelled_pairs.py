"""What an examiner says of a thousand answers is what the grader says, and never at the price of a false accept."""

from collections import Counter

import pytest
from labelled_pairs import Pair, read_pairs

from dynts_batch.grading import Grader

PAIRS = read_pairs()


def test_the_table_has_every_kind_in_both_verdicts() -> None:
    counts = Counter((pair.kind, pair.is_right) for pair in PAIRS)
    assert len(PAIRS) >= 400
    assert len({kind for kind, _ in counts}) >= 15
    assert min(counts.values()) >= 5, counts
    assert len(set(PAIRS)) == len(PAIRS)


@pytest.mark.timeout(120)
def test_every_pair_is_judged_as_labelled() -> None:
    with Grader("math", timeout_s=30.0) as grader:
        wrong = [pair for pair in PAIRS if _accepts(grader, pair) != pair.is_right]
    assert wrong == []


def _accepts(grader: Grader, pair: Pair) -> bool:
    return grader.grade(pair.answer, pair.reference).correct is True
