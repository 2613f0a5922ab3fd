"""Laws of grading under any input: no exception, different numbers are never equal,
and one number is, however written."""

from fractions import Fraction
from math import log, pi, sqrt

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from dynts_batch.grading import Grader
from dynts_batch.grading.equality import answers_equal, canonical_answer
from dynts_batch.grading.extract import (
    extract_answer,
    extract_choice,
    extract_reference,
    reference_choice,
)
from dynts_batch.grading.notation.numeral import parse_number

#: What answers are made of, and what breaks parsers.
_PIECES = (
    *("\\boxed{", "\\boxed", "\\fbox{", "####", "\\frac", "\\dfrac{", "\\sqrt{", "\\text{",
      "\\left(", "\\right)"),
    *("{", "}", "$", "$$", "\\(", "\\)", "\\[", "```", "\n", " ", ",", ".", "-", "\u2212", "/", "^",
      "_", "%", "\\%", "="),
    *("answer is", "The answer is (B)", "**A**", "1", "0", "23", "1,234", ".5", "1e9", "x", "\\pi",
      "\\infty", "\x00", "\ud800"),
)  # fmt: skip
_texts = st.lists(st.one_of(st.sampled_from(_PIECES), st.text(max_size=3)), max_size=25).map(
    "".join
)
_numbers = st.fractions(-10_000, 10_000, max_denominator=60)


def _ways(number: Fraction) -> list[str]:
    """To write `number` exactly."""
    top, bottom, sign = abs(number.numerator), number.denominator, "-" if number < 0 else ""
    found = [
        f"{sign}\\frac{{{top}}}{{{bottom}}}",
        f"{sign}{top}/{bottom}",
        f"{sign}\\dfrac{{{2 * top}}}{{{2 * bottom}}}",
    ]
    if bottom == 1:
        found += [
            f"{sign}{top}",
            f"{sign}{top:,}",
            f"{sign}{top}.0",
            f"{sign}{top:,}.00",
            f"{sign}{10 * top}e-1",
        ]
    elif not 10**6 % bottom:
        found += [f"{sign}{float(abs(number)):.6f}", f"{number.numerator * 10**6 // bottom}e-6"]
    return found


_written = _numbers.flatmap(
    lambda number: st.tuples(st.just(number), st.sampled_from(_ways(number)))
)
_wrapped = st.sampled_from(
    ["\\boxed{%s}", "So it is $\\boxed{%s}$.", "#### %s", "The answer is %s."]
)


@given(_texts)
@settings(max_examples=500)
def test_any_text_is_extracted_from_without_an_exception(text):
    for read in (extract_answer, extract_choice, extract_reference, reference_choice, parse_number):
        read(text)
    extracted = extract_answer(text)
    assert extracted is None or isinstance(extracted, str)


@given(_texts, _texts)
@settings(max_examples=300)
def test_equality_is_symmetric_and_what_votes_are_counted_by(a, b):
    assert answers_equal(a, b) == answers_equal(b, a)
    if answers_equal(a, b):
        assert canonical_answer(a) == canonical_answer(b)


@pytest.fixture(scope="module")
def grader():
    with Grader("math", timeout_s=30.0) as grader:
        yield grader


_slow = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])


@given(_written, _written, _wrapped)
@_slow
def test_different_numbers_are_never_equal(grader, mine, theirs, wrapped):
    assume(mine[0] != theirs[0])
    assert grader.grade(wrapped % mine[1], theirs[1]).correct is False


_small = st.integers(1, 30)
_roots = st.builds(
    lambda a, b, c: (f"\\frac{{{a}\\sqrt{{{b}}}}}{{{c}}}", a * sqrt(b) / c), _small, _small, _small
)
_sums = st.builds(
    lambda a, b, c: (f"{a}-{b}\\sqrt{{{c}}}", a - b * sqrt(c)), _small, _small, _small
)
_circles = st.builds(lambda a, b: (f"\\frac{{{a}\\pi}}{{{b}}}", a * pi / b), _small, _small)
_powers = st.builds(lambda a, b: (f"{a}^{{{b}}}", float(a**b)), _small, st.integers(-3, 9))
_logs = st.builds(lambda a, b: (f"{b}\\ln {a}", b * log(a)), _small, _small)
_expressions = st.one_of(_roots, _sums, _circles, _powers, _logs)


@given(_expressions, _expressions, _wrapped)
@_slow
def test_expressions_of_different_value_are_never_equal(grader, mine, theirs, wrapped):
    assume(abs(mine[1] - theirs[1]) > 1e-4 * max(1.0, abs(mine[1])))
    assert grader.grade(wrapped % mine[0], theirs[0]).correct is False


@given(_numbers, st.data(), _wrapped)
@_slow
def test_a_number_is_equal_to_itself_however_it_is_written(grader, number, data, wrapped):
    mine, theirs = (data.draw(st.sampled_from(_ways(number))) for _ in range(2))
    assert grader.grade(wrapped % mine, theirs).correct is True


@given(_texts, _texts)
@_slow
def test_any_answer_is_judged_against_any_reference(grader, answer, reference):
    assert grader.grade(answer, reference).correct in (True, False, None)
