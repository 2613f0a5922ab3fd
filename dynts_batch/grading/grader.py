"""The grader: extracts a row's answer and judges it against its reference."""

from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass
from typing import Literal, Self, get_args

from dynts_batch.errors import ConfigError
from dynts_batch.grading.equality import answers_equal, parse_number
from dynts_batch.grading.extract import (
    extract_answer,
    extract_choice,
    extract_reference,
    reference_choice,
)
from dynts_batch.grading.verifier import Verifier

GradingKind = Literal["math", "exact", "none"]


@dataclass(frozen=True, slots=True)
class Grade:
    """The judgement of one row."""

    extracted_answer: str | None
    correct: bool | None
    """None: not judged (no usable reference, or grading is off). Never None for a slow answer."""


class Grader:
    """Judges answers; a context manager that ends its child process on exit.

    - `exact`: the extracted answer equals the reference as normalised text or as a number.
    - `math`: that, else mathematical equality by math-verify, at most `timeout_s` seconds per
      answer; an answer that takes longer or crashes the checker is wrong.
    - `none`: answers are extracted, nothing is judged.

    A reference that is one capital letter is a multiple-choice key: letters are compared.
    """

    def __init__(self, kind: GradingKind = "math", *, timeout_s: float = 5.0) -> None:
        if kind not in get_args(GradingKind):
            choices = ", ".join(get_args(GradingKind))
            raise ConfigError(f"grading.kind must be one of {choices}, got {kind!r}")
        if not timeout_s > 0:
            raise ConfigError(f"grading.timeout_s must be above 0, got {timeout_s}")
        if kind == "math" and importlib.util.find_spec("math_verify") is None:
            raise ConfigError("grading.kind=math needs the package math-verify; or use exact, none")
        self._kind = kind
        self._verifier = Verifier(timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """End the child process. Grading afterwards starts a new one."""
        self._verifier.close()

    def grade(self, answer: str | None, reference: str | float | None) -> Grade:
        """Judge the text after the end of thinking, None if the model never got there.

        `reference` is the cell of the data set: text (a whole GSM8K solution included) or a number.
        Where it is null, blank, NaN or of another shape (a list, a struct) there is nothing to
        compare with and `correct` is None. With a reference, an answer that cannot be found is
        wrong. RuntimeError only if math-verify's process cannot be started.
        """
        text = answer or ""
        expected = None if self._kind == "none" else _reference_text(reference)
        if expected is None:
            return Grade(extract_answer(text), correct=None)
        key = reference_choice(expected)
        if key is not None:
            letter = extract_choice(text)
            return Grade(letter or extract_answer(text), letter == key)
        if answers_equal(text, expected):  # "1:58 am" alone is an answer, though it holds a number
            return Grade(text.strip(), correct=True)
        extracted = extract_answer(text)
        return Grade(extracted, extracted is not None and self._equal(extracted, expected))

    def _equal(self, answer: str, reference: str) -> bool:
        if answers_equal(answer, reference):
            return True
        if self._kind == "exact" or _both_integers(answer, reference):
            return False
        return self._verifier.verify(answer, reference)


def _reference_text(reference: object) -> str | None:
    if isinstance(reference, str):
        return extract_reference(reference)
    if isinstance(reference, int) or (isinstance(reference, float) and math.isfinite(reference)):
        return str(reference)
    return None


def _both_integers(answer: str, reference: str) -> bool:
    """Whether plain comparison is final: most wrong answers are, and spare the child its work."""
    numbers = parse_number(answer), parse_number(reference)
    return all(number is not None and number.denominator == 1 for number in numbers)
