"""Where answers are looked for, in which order, and that no text makes the search slow."""

import time

import pytest

from dynts_batch.grading import extract_answer, extract_choice, extract_reference
from dynts_batch.grading.extract import reference_choice


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{42}.", "42"),
        (r"\boxed{1} no, \boxed{\frac{a}{b^{2}}}", r"\frac{a}{b^{2}}"),
        (r"$\boxed{\left\{1,2\right\}}$", r"\left\{1,2\right\}"),
        (r"\boxed{\}}", r"\}"),
        (r"\fbox{7}", "7"),
        (r"\framebox{204} minutes", "204"),
        (r"\boxed 5$", "5"),
        (r"\\boxed{5}", "5"),
        (r"\boxed {x + \boxed{3}}", "3"),
        (r"\boxed{8} and again \boxed{", "8"),
        (r"put it within \boxed{}: \boxed{9}, not \boxed{ }", "9"),
        (r"\boxed{48}, \boxed{384}", "48, 384"),
        (r"$\boxed{2}$ or $\boxed{-2}$", "2, -2"),
        (r"\boxed{5}, \boxed{5}", "5"),
        (r"\boxed{4} is wrong, so \boxed{5}", "5"),
        (r"\boxedx{4} 7", "7"),
    ],
)
def test_the_last_balanced_box_wins(text: str, answer: str) -> None:
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("9 * 2 = $<<9*2=18>>18 a day.\n#### 18", "18"),
        ("#### $1,080\nThat was 3 steps.", "1,080"),
        ("I count 3.\n#### Paris", "Paris"),
        ("#### Step 1: add\nwe get 12\n#### Step 2: done\nThe answer is 14", "14"),
        ("##### 3\nit is 4", "4"),
        (r"\boxed{1}" + "\n#### 2", "1"),
    ],
)
def test_hash_lines_are_answers_and_headings_are_not(text: str, answer: str) -> None:
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The answer is 42. I checked it 3 times.", "42"),
        ("The final answer is $x = 5$, 2 checks.", "5"),
        ("**Answer:** 3/4\n\nDone in 2 steps.", "3/4"),
        ("Answer: \\(2x + 1\\)", "2x + 1"),
        ("The answer is 1. No, the answer is 5 or 9.", "5 or 9"),
        ("the correct answer to question 7 is 42 apples", "42"),
        ("The answer is Paris.", "Paris"),
        ("Final answer: $18.50", "18.50"),
        ("The answer is $5$ or $9$.", "$5$ or $9$"),
        ("The answer is 20 $cm^{2}$", "20 $cm^{2}$"),
        ("the answer is the area $x^2 + y^2 = 1$", "x^2 + y^2 = 1"),
        ("The answer is 1:58 am", "1:58 am"),
        ("the answer is", None),
        ("The final answer is:\n\n\\[\n\\frac{3}{4}\n\\]\nin 2 steps.", r"\frac{3}{4}"),
        ("Answer:\n\\[\nx = 5\n\\]\n2 steps", "5"),
        ("Answer:\n\\(\nx^2 + 1\n\\)\n2 steps", "x^2 + 1"),
        ("Answer:\n$$\nx^2 + 1\n$$\n2 steps", "$$ x^2 + 1 $$"),
        ("Answer:\n\\[\n" + "1 + " * 60 + "x\n\\]\nso 7", "7"),
        ("The answer is 42. I hope this answer is helpful!", "42"),
        ("So it is 42. I hope this answer is helpful!", "42"),
        ("The answer is 42. This answer is correct, since 42 = 42.", "42"),
        ("The answer is Paris. The answer is correct.", "Paris"),
        ("The answer is 5? No, the answer is no solution.", "no solution"),
        ("The answer is 3. Then the answer is right triangle.", "right triangle"),
        ("The answer is correct.", "correct"),
        ("**Answer:**\n- 42", "42"),
        ("**Answer:**\n\n  > **42**", "42"),
        ("**Answer:**\n* 42", "42"),
        ("**Answer:**\n-42", "-42"),
        ("Answer: - 42", "- 42"),
    ],
)
def test_a_stated_answer_beats_the_last_number(text: str, answer: str | None) -> None:
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("He has 3 + 4 = 7 apples", "7"),
        ("so x is -3", "-3"),
        ("5-3 leaves 2", "2"),
        ("it costs $1,234.50.", "1,234.50"),
        ("about 12% of H2O", "12%"),
        (r"thus \frac{3}{4} of it", r"\frac{3}{4}"),
        (r"Hence it is $\frac{\sqrt{5}}{2}$.", r"\frac{\sqrt{5}}{2}"),
        ("Hence $3 + 4 = 7$", "7"),
        ("he pays $5 and gets $2 back, so 3", "3"),
        ("nothing to see", None),
        ("", None),
    ],
)
def test_the_last_number_or_the_formula_around_it_is_the_last_resort(
    text: str, answer: str | None
) -> None:
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        (r"\boxed{C}", "C"),
        (r"\boxed{\textbf{(C)}\ 5}", "C"),
        (r"\boxed{\text{C. } 5 \text{ cm}}", "C"),
        (r"\boxed{5}, that is (C)", None),
        ("The answer is (B).", "B"),
        ("**Answer:** D", "D"),
        ("The correct option is $\\mathrm{A}$", "A"),
        ("Answer: Because A is too small, it must be\n(B) 7", "B"),
        ("(A) is too small, (D) fits", "D"),
        ("thinking\n\nC", "C"),
        ("C) 12", "C"),
        ("A cat", None),
        ("I have no idea", None),
    ],
)
def test_a_multiple_choice_answer_is_a_letter(text: str, letter: str | None) -> None:
    assert extract_choice(text) == letter


@pytest.mark.parametrize(
    ("reference", "letter"),
    [("C", "C"), ("(C)", "C"), (r"$\text{C}$", "C"), ("x", None), ("12", None), ("C_1", None)],
)
def test_a_reference_of_one_capital_letter_is_a_multiple_choice_key(
    reference: str, letter: str | None
) -> None:
    assert reference_choice(reference) == letter


@pytest.mark.parametrize(
    ("reference", "answer"),
    [
        ("She makes 9 * 2 = 18\n#### 18", "18"),
        (r"Adding both, we get $\boxed{113}$ and 7 steps", "113"),
        ("$Quadrant 3$", "$Quadrant 3$"),
        ("1:58 am", "1:58 am"),
        ("  ", None),
    ],
)
def test_a_reference_is_its_marked_part_or_all_of_it(reference: str, answer: str | None) -> None:
    assert extract_reference(reference) == answer


HOSTILE = [
    "```\n", "```", "~~~\n~~~\n", "```\n1\n",
    r"\boxed{", "{", "}", "\\", "\\boxed ", r"\boxed{}", r"\boxed{1}, ", "####", "#### a\n", " ",
    "answer ", "answer is ", "answer:\n", "$", "$1", r"\(", r"\[", "1", "1,", "1,111,", "-", "1.",
    "1/", r"\frac{", r"\frac{1}{", r"\text{", r"\text ", "(A", "(A)", "option ", "e", ",  ", "\n",
]  # fmt: skip


@pytest.mark.parametrize("piece", HOSTILE)
def test_no_text_takes_more_than_a_scan(piece: str) -> None:
    """Quadratic code takes six seconds and more here; linear code is done in half a second."""
    text = piece * 20_000 + "}" * 20_000
    started_s = time.process_time()
    extract_answer(text)
    extract_choice(text)
    extract_reference(text)
    assert time.process_time() - started_s < 3.0


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Here:\n```python\ndef f(x):\n    return x + 1\n```\n", "def f(x):\n    return x + 1"),
        ("The answer is:\n~~~\nprint(2)\n~~~", "print(2)"),
        ("```python\nprint(6 * 7)\n```\nIt prints 42.", "42"),
        ("In 3 steps.\n```\na = 1\n```", "a = 1"),
        ("```\nunclosed = 5", "unclosed = 5"),
        ("```\nx = 5\n```\n#### 7", "7"),
        ("I get 9.\n```\n```", "9"),
        ("so `x = 5` holds, 6", "6"),
    ],
)
def test_a_code_block_is_text_and_nothing_is_looked_for_inside(text: str, answer: str) -> None:
    assert extract_answer(text) == answer


def test_a_choice_may_stand_behind_hashes() -> None:
    assert extract_choice("I like (A).\n#### C") == "C"
