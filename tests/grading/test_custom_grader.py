"""A grader of the user's: one importable function, checked before anything runs,
bounded like the others."""

import logging
import sys
import time
from pathlib import Path

import pytest

from dynts_batch.errors import ConfigError
from dynts_batch.grading import Grade, Grader

SOURCE = """
import sys, time

def longer(answer, reference):
    if answer is None:
        return None
    if answer == "hang":
        time.sleep(60)
    if answer == "exit":
        sys.exit(1)
    if answer == "number":
        return 1
    print("what a grader prints harms nothing")
    return len(answer) > len(reference) / (answer != "raise")

NOT_A_FUNCTION = 3
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "my_graders.py").write_text(SOURCE)
    (tmp_path / "broken_graders.py").write_text("import no_such_module")
    monkeypatch.chdir(tmp_path)  # the folder that a job is started from
    return "my_graders"


def test_its_verdict_is_the_judgement_and_the_answer_is_extracted_as_ever(module: str) -> None:
    with Grader(f"{module}:longer", timeout_s=30.0) as grader:
        assert grader.grade(r"so \boxed{12}", "12345") == Grade("12", correct=True)
        assert grader.grade("12", "12345") == Grade("12", correct=False)
        assert grader.grade(None, "12345") == Grade(None, correct=None)
        assert grader.grade("12", None).correct is None
    assert module not in sys.modules, "it must not run in this process"


def test_it_gets_the_whole_reference_cell(module: str) -> None:
    with Grader(f"{module}:longer", timeout_s=30.0) as grader:
        assert grader.grade("123456", "a long solution\n#### 5").correct is False


@pytest.mark.parametrize("answer", ["raise", "number"])
def test_what_it_raises_leaves_the_row_unjudged_and_is_logged(
    module: str, answer: str, caplog: pytest.LogCaptureFixture
) -> None:
    with Grader(f"{module}:longer", timeout_s=30.0) as grader, caplog.at_level(logging.WARNING):
        assert grader.grade(answer, "5").correct is None
        assert "the row is not judged" in caplog.text
        assert grader.grade("1234", "5").correct is True


@pytest.mark.parametrize("answer", ["hang", "exit"])
def test_a_hang_or_a_crash_is_wrong_within_the_bound(module: str, answer: str) -> None:
    with Grader(f"{module}:longer", timeout_s=2.0) as grader:
        started_s = time.monotonic()
        assert grader.grade(answer, "5").correct is False
        assert time.monotonic() - started_s < 6.0
        assert grader.grade("1234", "5").correct is True


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (
            "no_such_module:f",
            "cannot be loaded: ModuleNotFoundError: No module named 'no_such_module'",
        ),
        ("my_graders:longest", "cannot be loaded: AttributeError: .* has no attribute 'longest'"),
        ("my_graders:NOT_A_FUNCTION", "cannot be loaded: TypeError: .* is no function"),
        (
            "broken_graders:f",
            "cannot be loaded: ModuleNotFoundError: No module named 'no_such_module'",
        ),
        ("llm", r"must be one of math, exact, none or module:function, got 'llm'"),
    ],
)
def test_what_cannot_be_loaded_is_refused_at_once(module: str, kind: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"grading.kind.*{message}"):
        Grader(kind)


def test_a_benchmark_means_nothing_to_it(module: str) -> None:
    with pytest.raises(ConfigError, match=r"grading.benchmark must be null"):
        Grader(f"{module}:longer", benchmark="aime")
