"""grading.text: what of a completion is read where thinking never ended,
and which rows that decides."""

import pytest

from dynts_batch.errors import ConfigError
from dynts_batch.grading import Grade, Grader

BOXES = "So it is \\boxed{7}. Wait, no: \\boxed{5}. Let me check that again, 9 times"


@pytest.mark.parametrize("text", ["answer", "completion"])
def test_an_answer_is_read_alike_whatever_was_thought(text: str) -> None:
    with Grader("exact", text=text) as grader:
        assert grader.grade("\\boxed{7}", "7", BOXES) == Grade(
            "7", correct=True, text_matters=False
        )
        assert grader.grade("", "5", BOXES) == Grade(None, correct=False, text_matters=False)


@pytest.mark.parametrize(
    ("reasoning", "reference", "strict", "whole"),
    [
        (BOXES, "5", Grade(None, correct=False, text_matters=True), Grade("5", True, True)),
        (BOXES, "7", Grade(None, correct=False, text_matters=False), Grade("5", False, False)),
        ("it is 5", "5", Grade(None, correct=False, text_matters=False), Grade(None, False, False)),
        (
            "\\boxed{(b)}",
            "B",
            Grade(None, correct=False, text_matters=True),
            Grade("B", True, True),
        ),
        (BOXES, None, Grade(None, correct=None), Grade("5", correct=None)),
    ],
)
def test_thinking_that_never_ended_has_no_answer_or_its_last_box(
    reasoning: str, reference: str | None, strict: Grade, whole: Grade
) -> None:
    for text, grade in (("answer", strict), ("completion", whole)):
        with Grader("exact", text=text) as grader:
            assert grader.grade(None, reference, reasoning) == grade


def test_another_text_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"grading.text must be one of answer, completion, got"):
        Grader(text="reasoning")


def test_a_function_of_the_users_gets_the_whole_completion(tmp_path, monkeypatch) -> None:
    (tmp_path / "seen.py").write_text(
        "def length(answer, reference): return len(answer or '') == 4"
    )
    monkeypatch.chdir(tmp_path)
    for text, correct in (("answer", False), ("completion", True)):
        with Grader("seen:length", text=text, timeout_s=30.0) as grader:
            assert grader.grade(None, "5", "abcd").correct is correct
