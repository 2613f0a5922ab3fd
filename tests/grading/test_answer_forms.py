"""What `grading.benchmark` changes: how the answers of one benchmark are read."""

from collections.abc import Iterator
from fractions import Fraction
from typing import get_args, get_type_hints

import pytest

from dynts_batch.config import GradingConfig
from dynts_batch.errors import ConfigError
from dynts_batch.grading import Grader
from dynts_batch.grading.answer_forms import ANSWER_FORMS, read_number


@pytest.fixture(scope="module")
def graders() -> Iterator[dict[str, Grader]]:
    graders = {name: Grader("math", benchmark=name, timeout_s=30.0) for name in ANSWER_FORMS}
    yield graders
    for grader in graders.values():
        grader.close()


@pytest.mark.parametrize(
    ("benchmark", "answer", "reference"),
    [
        ("aime", r"\boxed{033}", "33"),
        ("aime", r"Thus $m + n = \boxed{33}$.", "033"),
        ("aime", r"$\boxed{m+n=33}$", 33),
        ("amc", r"\boxed{\textbf{(C)}\ 27}", 27.0),
        ("amc", r"\boxed{C}", "C"),
        ("amc", r"\boxed{\frac{54}{2}}", 27.0),
        ("math", r"\boxed{(x+1)^2}", "x^2+2x+1"),
        ("gaokao", "The answer is B.", "B"),
        ("gaokao", r"\boxed{\{3,2\}}", r"$\{2,3\}$"),
        ("gpqa", "Looking at (A) and (D) again.\n\nThe correct answer is (D).", "D"),
        ("gpqa", "#### B", "B"),
        ("gsm8k", "She has 3.\n#### $1,080", "3 * 360 = 1080\n#### 1,080"),
        ("gsm8k", "The answer is 18 dollars.", "#### 18"),
        ("gsm8k", r"\boxed{18.00}", "#### 18"),
        ("gsm8k", "So 3 + 15 = 18 eggs in all", "#### 18"),
    ],
)
def test_its_usual_spellings_are_right(
    graders: dict[str, Grader], benchmark: str, answer: str, reference: str | float
) -> None:
    assert graders[benchmark].grade(answer, reference).correct is True


@pytest.mark.parametrize(
    ("benchmark", "answer", "reference"),
    [
        ("aime", r"\boxed{\frac{66}{2}}", "32"),
        ("aime", r"\boxed{33 \text{ or } 34}", "33"),
        ("aime", r"\boxed{33\pi}", "33"),
        ("aime", r"\boxed{C}", "33"),
        ("amc", r"\boxed{\textbf{(C)}\ 28}", 27.0),
        ("amc", r"\boxed{27x}", 27.0),
        ("gpqa", r"\boxed{A}", "D"),
        ("gpqa", "I cannot say.", "D"),
        ("gsm8k", "18 or 20: the answer is 18 or 20", "#### 18"),
        ("gsm8k", None, "#### 18"),
    ],
)
def test_what_it_did_not_ask_for_is_wrong(
    graders: dict[str, Grader], benchmark: str, answer: str | None, reference: str | float
) -> None:
    assert graders[benchmark].grade(answer, reference).correct is False


def test_a_number_is_shown_as_it_was_compared(graders: dict[str, Grader]) -> None:
    assert graders["gsm8k"].grade("#### $1,080.00", "#### 1,080").extracted_answer == "1080"
    assert graders["amc"].grade(r"\boxed{\frac{1}{3}}", "0.5").extracted_answer == "1/3"
    assert graders["gsm8k"].grade("#### 12345678901234567890", "#### 1").extracted_answer == (
        "12345678901234567890"
    )


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("18", 18),
        ("x = 18", 18),
        (r"\$1,080", 1080),
        ("1{,}080 people", 1080),
        (r"(C) 27 \text{ cm}^2", 27),
        ("about 3.5 km", Fraction(7, 2)),
        (r"\frac{3}{4} \text{ cup}", Fraction(3, 4)),
        (r"60^\circ", 60),
        ("5 or 9", None),
        ("(1, 2)", None),
        ("2^{10}", None),
        (r"16\pi", None),
        ("5x", None),
        ("5 x", None),
        ("5^2", None),
        ("(B) 5^3", None),
        ("20 cm^2", 20),
        (r"72\mathrm{~cm}^{2}", 72),
        (r"3 \text{ million dollars}", 3_000_000),
        ("$3 million dollars", 3_000_000),
        ("3 thousand", 3_000),
        ("18 a day", 18),
        ("12:30", None),
        ("none", None),
        ("", None),
    ],
)
def test_one_number_is_read_and_an_expression_is_none(
    text: str, number: Fraction | int | None
) -> None:
    assert read_number(text) == number


def test_the_configuration_knows_them_all_and_a_wrong_one_is_named() -> None:
    (names,) = [
        args
        for hint in get_args(get_type_hints(GradingConfig)["benchmark"])
        if (args := get_args(hint))
    ]
    assert set(names) == set(ANSWER_FORMS)
    with pytest.raises(ConfigError, match=r"grading.benchmark must be one of aime, .*, got 'imo'"):
        Grader("math", benchmark="imo")
