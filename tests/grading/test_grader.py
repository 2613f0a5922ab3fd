"""What a row's judgement is: correct, wrong, or not judged."""

import math
from typing import Any

import pytest

from dynts_batch.errors import ConfigError
from dynts_batch.grading import Grade, Grader


@pytest.fixture(scope="module")
def grader():
    with Grader("math", timeout_s=30.0) as grader:
        yield grader


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        (r"\boxed{\frac{2}{4}}", "0.5"),
        (r"\boxed{1+x}", "$x + 1$"),
        (r"\boxed{(x+1)^2}", "x^2+2x+1"),
        (r"\boxed{\frac{1}{\sqrt{2}}}", r"\frac{\sqrt{2}}{2}"),
        (r"\boxed{\{3,2,5\}}", r"$\{2,3,5\}$"),
        (r"$\boxed{384}$ and $\boxed{48}$", "$48$, $384$"),
        (r"\boxed{x=9}", "9"),
        (r"\boxed{18 \text{ dollars}}", "#### 18"),
        (r"the answer is $\sqrt{8}$", r"$2\sqrt{2}$"),
        ("1:58 am", "1:58 am"),
        (r"\boxed{27}", 27.0),
        ("27", 27),
    ],
)
def test_equal_mathematics_is_correct(grader: Grader, answer: str, reference: Any) -> None:
    assert grader.grade(answer, reference).correct is True


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        (r"\boxed{5}", "6"),
        (r"\boxed{x^2}", "x^3"),
        (r"\boxed{[1,2]}", "(1,2)"),
        (r"\boxed{4, 5}", "5"),
        (r"\boxed{17}, \boxed{18}", "18"),
        ("I do not know", "7"),
        ("", "7"),
        (None, "7"),
    ],
)
def test_anything_else_is_wrong(grader: Grader, answer: str | None, reference: str) -> None:
    assert grader.grade(answer, reference).correct is False


@pytest.mark.parametrize("reference", [None, "", "  \n", math.nan, ["5"], {"a": 5}])
def test_without_a_usable_reference_nothing_is_judged(grader: Grader, reference: Any) -> None:
    assert grader.grade(r"\boxed{5}", reference) == Grade("5", correct=None)


@pytest.mark.parametrize(
    ("answer", "grade"),
    [
        (r"\boxed{\text{(C)}}", Grade("C", correct=True)),
        ("The answer is B", Grade("B", correct=False)),
        (r"\boxed{5}", Grade("5", correct=False)),
    ],
)
def test_a_letter_is_compared_as_a_letter(grader: Grader, answer: str, grade: Grade) -> None:
    assert grader.grade(answer, "C") == grade


def test_exact_knows_numbers_and_typography_but_no_algebra() -> None:
    with Grader("exact") as grader:
        assert grader.grade(r"\boxed{\frac{1}{2}}", "0.5").correct is True
        assert grader.grade("The answer is Paris.", "paris").correct is True
        assert grader.grade(r"\boxed{1+x}", "x+1").correct is False


def test_none_extracts_and_judges_nothing() -> None:
    with Grader("none") as grader:
        assert grader.grade(r"\boxed{5}", "5") == Grade("5", correct=None)


@pytest.mark.parametrize("arguments", [{"kind": "llm"}, {"timeout_s": 0.0}])
def test_a_wrong_setting_is_named(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"grading\.\w+ must be .*, got"):
        Grader(**arguments)
