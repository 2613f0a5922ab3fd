# ruff: noqa: RUF001  digits of other scripts look like ours
"""Laws of numerals: what is exact stays exact,
and what is rounded is judged by the digits that are written."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynts_batch.grading.comparison import Comparison, NoAlgebra
from dynts_batch.grading.notation.numeral import Numeral, agree, read_numeral


def _agree(answer: str, reference: str) -> bool:
    a, b = read_numeral(answer), read_numeral(reference)
    assert a is not None
    assert b is not None
    return agree(a, b)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3 1/2", "7/2"), ("3½", "7/2"), (r"3\frac12", "7/2"), (r"-2\tfrac{1}{4}", "-9/4"),
        ("1 and 1/2", "3/2"), (r"0.\overline{3}", "1/3"), (r"0.1\dot{6}", "1/6"),
        ("0.272727...", "3/11"), (r"0.\overline{9}", "1"),
        (r"1\ 000", "1000"), ("1 000 000", "1000000"), ("1,00,000", "100000"),
        ("1{,}234.5", "2469/2"), (r"1.6\times10^{-3}", "1/625"), ("1.6x10^-3", "1/625"),
        ("1.6·10⁻³", "1/625"), ("1.6e-3", "1/625"),
        ("٣٫٥", "7/2"), ("４２", "42"), ("१,२५०", "1250"), ("十八", "18"), ("𝟒𝟐", "42"),
        ("twenty-one", "21"), ("two thirds", "2/3"), ("1.45 million", "1450000"),
        ("two hundred and five", "205"),
    ],
)  # fmt: skip
def test_a_number_has_one_value_however_it_is_written(text: str, value: str) -> None:
    numeral = read_numeral(text)
    assert numeral is not None
    assert numeral.value == Fraction(value)


@pytest.mark.parametrize(
    "text",
    ["10:30", "1,2", "1, 000", "3 1", "(1,200)", "5 or 6", "2 5/3", "1/0", "x", "", "third", "e"],
)
def test_what_is_no_number_is_none(text: str) -> None:
    assert read_numeral(text) is None


@pytest.mark.parametrize("text", ["and", "And and", "-and"])
def test_an_answer_of_nothing_but_and_is_no_number(text: str) -> None:
    """A model that had lost its way answered "and",
    which was an IndexError that took the worker along."""
    assert read_numeral(text) is None
    assert Comparison(NoAlgebra()).equal(text, "5") is False


@given(st.integers(-(10**30), 10**30), st.integers(-3, 3))
def test_integers_are_never_rounded(number: int, difference: int) -> None:
    assert _agree(str(number + difference), f"{number:,}") == (difference == 0)


@given(st.integers(1000, 9999), st.integers(-300, 300), st.integers(-9, 9))
def test_a_tolerance_is_relative_to_what_is_written(
    digits: int, power: int, difference: int
) -> None:
    """math-verify takes all numbers below 1e-17 for one."""
    reference = rf"{digits / 1000:.3f}\times10^{{{power}}}"
    assert _agree(rf"{(digits + difference) / 1000:.3f}\times10^{{{power}}}", reference) == (
        difference == 0
    )
    assert not _agree(rf"-{reference}", reference)
    assert not _agree("0", reference)


@pytest.mark.parametrize(
    ("answer", "reference", "is_same"),
    [
        ("0.333333", "1/3", True), ("0.3333", "1/3", False), ("0.333334", "1/3", False),
        ("0.666667", "2/3", True), ("1.6022e-19", "1.602e-19", True),
        ("1.6027e-19", "1.602e-19", False), ("1.60e-19", "1.602e-19", False),
        ("2.998e8", "3.00e8", True), ("299792458", "3e8", False), ("2.51", "2.5", False),
        ("0.30000000000000004", "0.3", True),
    ],
)  # fmt: skip
def test_a_rounded_value_stands_for_an_exact_or_a_measured_one_only(
    answer: str, reference: str, *, is_same: bool
) -> None:
    assert _agree(answer, reference) is is_same


def test_a_measured_value_keeps_its_digits_in_another_unit() -> None:
    assert read_numeral("9.11e-28") == read_numeral("9.11e-31").scaled(Fraction(1000))
    assert Numeral(Fraction(3)).scaled(Fraction(1, 7)) == Numeral(Fraction(3, 7))
