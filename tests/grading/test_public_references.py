"""References of public benchmarks: right against themselves, wrong against each other."""

import json
from pathlib import Path

import pytest

from dynts_batch.grading import Grader, extract_reference
from dynts_batch.grading.equality import answers_equal
from dynts_batch.grading.verifier import Verifier

DATA = Path(__file__).parents[3] / "shared" / "data"
BENCHMARKS = ["gsm8k", "aime24", "amc23", "gaokao2023en"]

# Two rows of the file have no answer at all.
NUM_BLANK = {"gsm8k": 0, "aime24": 0, "amc23": 0, "gaokao2023en": 2}

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"no public problem sets in {DATA}")


def read_references(benchmark: str) -> list[str | float]:
    lines = (DATA / f"{benchmark}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["answer"] for line in lines]


@pytest.fixture(scope="module")
def grader():
    with Grader("math", timeout_s=30.0) as grader:
        yield grader


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_every_reference_is_right_against_itself(grader: Grader, benchmark: str) -> None:
    references = read_references(benchmark)
    for style in ("{}", "Thus $\\boxed{{{}}}$, as 3 checks show.", "The answer is {}"):
        grades = [
            grader.grade(style.format(extract_reference(str(reference))), reference)
            for reference in references
        ]
        judged = [grade.correct for grade in grades if grade.correct is not None]
        assert len(judged) == len(references) - NUM_BLANK[benchmark]
        assert judged.count(False) <= 0.01 * len(judged)


def test_math_verify_alone_agrees_with_every_latex_reference() -> None:
    verifier = Verifier(timeout_s=30.0)
    references = {str(reference) for reference in read_references("gaokao2023en")} - {""}
    assert [text for text in references if not verifier.verify(text, text)] == []
    verifier.close()


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_shuffled_references_are_rejected(grader: Grader, benchmark: str) -> None:
    expected = [extract_reference(str(reference)) for reference in read_references(benchmark)]
    pairs = [
        (answer, reference)
        for answer, reference in zip(expected, expected[7:] + expected[:7], strict=True)
        if answer and reference and not answers_equal(answer, reference)
    ]
    accepted = [pair for pair in pairs if grader.grade(rf"\boxed{{{pair[0]}}}", pair[1]).correct]
    assert len(accepted) <= 0.01 * len(pairs), accepted
