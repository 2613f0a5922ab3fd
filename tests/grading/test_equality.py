"""What counts as the same answer without any algebra."""

from fractions import Fraction

import pytest

from dynts_batch.grading.equality import answers_equal, canonical_answer
from dynts_batch.grading.notation.numeral import parse_number


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("18", "18.0"),
        ("70,000", "70000"),
        ("70{,}000", "$70000$"),
        (r"\$18.00", "18"),
        ("025", "25"),
        (r"\dfrac{3}{4}", "0.75"),
        ("-3/6", r"-\frac{1}{2}"),
        (r"50\%", "50"),
        (r"30^{\circ}", "30"),
        ("2e3", "2000"),
        (r"\left(1,\ 2\right)", "(1, 2)"),
        (r"\text{yes}", "Yes."),
        (r"x + 1", "x+1"),
        ("\u22125", "-5"),
    ],
)
def test_typography_makes_no_difference(answer: str, reference: str) -> None:
    assert answers_equal(answer, reference)
    assert answers_equal(reference, answer)
    assert canonical_answer(answer) == canonical_answer(reference)


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("18", "19"),
        ("x", "X"),
        ("2, 600", "2,600"),
        ("1/3", "0.333333"),
        ("1/0", "2/0"),
        ("5 or 6", "5"),
        ("", "0"),
        ("", "%"),
    ],
)
def test_different_answers_stay_different(answer: str, reference: str) -> None:
    assert not answers_equal(answer, reference)
    assert canonical_answer(answer) != canonical_answer(reference) or not answer


def test_a_number_is_exact() -> None:
    assert parse_number("-1,234.5") == Fraction(-2469, 2)
    assert parse_number(".5") == Fraction(1, 2)
    assert parse_number("one") == 1
    assert parse_number("once") is None


@pytest.mark.parametrize("text", ["1e999999999", "9" * 100_000, "1/" + "9" * 100_000])
def test_a_huge_number_is_text(text: str) -> None:
    assert parse_number(text) is None
    assert answers_equal(text, text)
