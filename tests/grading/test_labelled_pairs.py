"""What an examiner says of a thousand answers is what the grader says,
and never at the price of a false accept."""

from collections import Counter

import pytest
from labelled_pairs import Pair, read_pairs

from dynts_batch.grading import Grader

PAIRS = read_pairs()

#: Right answers that are not recognised, by answer: an identity matrix by its name, a column
#: written as a binomial coefficient, a rounded value in another unit, and ratios that look like a
#: time of day.
KNOWN_GAPS = {
    r"\boxed{2I}", r"\boxed{\binom{3}{-7}}", r"\boxed{2.179\times10^{-18} \text{ J}}",
    r"\boxed{5/12}", r"\boxed{10:24}",
}  # fmt: skip


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
    assert [pair for pair in wrong if not pair.is_right] == []
    assert {pair.answer for pair in wrong} == KNOWN_GAPS


def _accepts(grader: Grader, pair: Pair) -> bool:
    return grader.grade(pair.answer, pair.reference).correct is True
