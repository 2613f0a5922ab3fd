"""References of public benchmarks: right against themselves, wrong against each other."""

import json
import os
from pathlib import Path

import pytest

from dynts_batch.grading import Grader, extract_reference
from dynts_batch.grading.equality import answers_equal
from dynts_batch.grading.verifier import Verifier

DATA = Path(os.environ.get("DYNTS_DATA", Path(__file__).parents[3] / "shared" / "data"))
BENCHMARKS = ["gsm8k", "aime24", "amc23", "gaokao2023en"]
SETTINGS = {"gsm8k": "gsm8k", "aime24": "aime", "amc23": "amc", "gaokao2023en": "gaokao"}

# Two rows of the file have no answer at all.
NUM_BLANK = {"gsm8k": 0, "aime24": 0, "amc23": 0, "gaokao2023en": 2}

pytestmark = pytest.mark.skipif(
    not DATA.is_dir(), reason=f"no public problem sets in {DATA}; set DYNTS_DATA"
)


def read_references(benchmark: str) -> list[str | float]:
    lines = (DATA / f"{benchmark}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["answer"] for line in lines]


@pytest.fixture(scope="module")
def grader():
    with Grader("math", timeout_s=30.0) as grader:
        yield grader


#: How models write an answer down; "{}" is the reference's own answer.
STYLES = (
    "{}", "Thus $\\boxed{{{}}}$, as 3 checks show.", "The answer is {}", "Adding 2 and 3.\n#### {}",
)  # fmt: skip

#: Chance collisions, beside those of equal answers: (answer, reference), and why.
#: - an equation counts as its right side, which "m + n = 113" for 113 needs, and a curve "... = 1"
#:   has one too;
#: - a set of one solution counts as the solution.
COLLISIONS = {
    (r"$\frac{x^{2}}{2} - \frac{y^{2}}{2} = 1$", "1"),
    (r"$\frac{x^{2}}{2} - \frac{y^{2}}{2} = 1$", "$1$"),
    (r"$\{-2\}$", "$-2$"),
    ("$-2$", r"$\{-2\}$"),
}


@pytest.mark.parametrize("setting", ["own", None])
@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_every_reference_is_right_against_itself(benchmark: str, setting: str | None) -> None:
    references = read_references(benchmark)
    own = SETTINGS[benchmark] if setting == "own" else None
    with Grader("math", benchmark=own, timeout_s=30.0) as grader:
        for style in STYLES:
            answers = [style.format(extract_reference(str(r))) for r in references]
            grades = [grader.grade(*pair) for pair in zip(answers, references, strict=True)]
            wrong = [
                reference
                for reference, grade in zip(references, grades, strict=True)
                if grade.correct is not True
            ]
            assert wrong == [""] * NUM_BLANK[benchmark], (style, wrong)


def test_math_verify_alone_agrees_with_every_latex_reference() -> None:
    verifier = Verifier(timeout_s=30.0)
    references = {str(reference) for reference in read_references("gaokao2023en")} - {""}
    assert [text for text in references if not verifier.verify(text, text)] == []
    verifier.close()


@pytest.mark.parametrize(
    "shift", [1, -7, *(pytest.param(n, marks=pytest.mark.long) for n in (7, 13, -1, -13))]
)
@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_shuffled_references_are_rejected(grader: Grader, benchmark: str, shift: int) -> None:
    expected = [extract_reference(str(reference)) for reference in read_references(benchmark)]
    pairs = [
        (answer, reference)
        for answer, reference in zip(expected, expected[shift:] + expected[:shift], strict=True)
        if answer and reference and not answers_equal(answer, reference)
    ]
    accepted = {pair for pair in pairs if grader.grade(rf"\boxed{{{pair[0]}}}", pair[1]).correct}
    assert accepted <= COLLISIONS
    assert len(accepted) <= 0.01 * len(pairs)
