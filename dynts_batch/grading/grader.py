"""The grader: extracts a row's answer and judges it against its reference."""

from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Self

from dynts_batch.config import GradingConfig
from dynts_batch.errors import ConfigError
from dynts_batch.grading.answer_forms import ANSWER_FORMS, AnswerForm, read_number
from dynts_batch.grading.comparison import compare_numbers, equal_without_algebra
from dynts_batch.grading.equality import answers_equal
from dynts_batch.grading.extract import (
    extract_answer,
    extract_box,
    extract_choice,
    extract_reference,
    reference_choice,
)
from dynts_batch.grading.notation.numeral import parse_number
from dynts_batch.grading.notation.typography import fold
from dynts_batch.grading.verifier import MATH_VERIFY, JudgeError, Verifier

KINDS = ("math", "exact", "none")
TEXTS = ("answer", "completion")

_SHORT_CHARS = 200  # of a text that may be an answer as a whole


@dataclass(frozen=True, slots=True)
class Grade:
    """The judgement of one row."""

    extracted_answer: str | None
    correct: bool | None
    """None: not judged, because grading is off or the reference cannot be used. A slow answer is
    judged: it is wrong."""
    text_matters: bool | None = field(default=None, compare=False)
    """Whether the other `text` would change the verdict. None: not judged, or judged by a user's
    function, which is asked only once."""


class Grader:
    """Judges answers. A context manager that ends its child process on exit.

    - `exact`: the extracted answer equals the reference as normalised text or as a number.
    - `math`: as `exact`, or equal by math-verify, at most `timeout_s` seconds of CPU time per
      answer. An answer that takes longer or crashes the checker is wrong.
    - `none`: answers are extracted, nothing is judged.
    - `module:function`: the verdict of `function(answer, reference)`: True, False, or None for "no
      judgement". It gets the whole text after the end of thinking (None if the model never got
      there) and the reference as text. It runs in its own process, for `timeout_s` seconds at most.

    `text` is what is read. `answer`: what follows the end of thinking. `completion`: if thinking
    never ended, the last box in it too, as the field's harnesses do; a function then gets all of
    the thinking.

    A reference that is one capital letter is a multiple-choice key: letters are compared.
    `benchmark` names an entry of `ANSWER_FORMS`, which says more about the answers.
    """

    def __init__(
        self,
        kind: str = "math",
        *,
        benchmark: str | None = None,
        text: str = "answer",
        timeout_s: float = 5.0,
    ) -> None:
        """Raises: ConfigError for a wrong setting, or a function that cannot be loaded."""
        if not timeout_s > 0:
            raise ConfigError(f"grading.timeout_s must be above 0, got {timeout_s}")
        if benchmark is not None and benchmark not in ANSWER_FORMS:
            raise ConfigError(
                f"grading.benchmark must be one of {', '.join(ANSWER_FORMS)} or null, "
                f"got {benchmark!r}"
            )
        if kind == "math" and importlib.util.find_spec("math_verify") is None:
            raise ConfigError("grading.kind=math needs the package math-verify; or use exact, none")
        if text not in TEXTS:
            raise ConfigError(f"grading.text must be one of {', '.join(TEXTS)}, got {text!r}")
        self._kind, self._reads_all = kind, text == "completion"
        self._benchmark = (
            ANSWER_FORMS[benchmark] if benchmark is not None else AnswerForm("expression")
        )
        self._is_custom = kind not in KINDS
        self._verifier = Verifier(timeout_s, kind if self._is_custom else MATH_VERIFY)
        if self._is_custom:
            self._load_function(benchmark)

    @classmethod
    def from_config(cls, config: GradingConfig) -> Self:
        """Raises: ConfigError for a wrong setting, or a function that cannot be loaded."""
        return cls(
            config.kind, benchmark=config.benchmark, text=config.text, timeout_s=config.timeout_s
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """End the child process. Grading afterwards starts a new one."""
        self._verifier.close()

    def _load_function(self, benchmark: str | None) -> None:
        module, _, function = self._kind.partition(":")
        if not module or not function:
            raise ConfigError(
                f"grading.kind must be one of {', '.join(KINDS)} or module:function, "
                f"got {self._kind!r}"
            )
        if benchmark is not None:
            raise ConfigError(
                f"grading.benchmark must be null if grading.kind is a function, got {benchmark!r}"
            )
        try:
            self._verifier.start()
        except JudgeError as error:
            raise ConfigError(f"grading.kind {self._kind!r} cannot be loaded: {error}") from error

    def grade(
        self, answer: str | None, reference: str | float | None, reasoning: str | None = None
    ) -> Grade:
        """Judge an answer against its reference.

        `answer` is the text after the end of thinking; None if the model never got there.
        `reasoning` is the text before.

        `reference` is the cell of the data set: text (a whole GSM8K solution included) or a number.
        If it is null, blank, NaN or of another shape (a list, a struct), `correct` is None. If
        there is a reference, an answer that cannot be found is wrong.

        Raises: RuntimeError, only if math-verify's process cannot be started.
        """
        if answer is not None or reasoning is None:
            strict = self._grade(answer, reference)
            return replace(strict, text_matters=None if strict.correct is None else False)
        if self._is_custom:
            return self._grade(reasoning if self._reads_all else None, reference)
        strict = self._grade(None, reference)
        box = extract_box(fold(reasoning))
        boxed = strict if box is None else self._grade(rf"\boxed{{{box}}}", reference)
        matters = None if strict.correct is None else boxed.correct is not strict.correct
        return replace(boxed if self._reads_all else strict, text_matters=matters)

    def _grade(self, answer: str | None, reference: str | float | None) -> Grade:
        text = fold(answer or "")
        expected = None if self._kind == "none" else _reference_text(reference)
        if expected is None:
            return Grade(extract_answer(text), correct=None)
        if self._is_custom:
            correct = self._verifier.verify(answer, str(reference))
            return Grade(extract_answer(text), correct)
        key = reference_choice(expected)
        if key is not None and key in self._benchmark.letters:
            letter = extract_choice(text)
            return Grade(letter or extract_answer(text), letter == key)
        if self._benchmark.form in ("number", "integer") and parse_number(expected) is not None:
            return self._grade_number(text, expected)
        if len(text) <= _SHORT_CHARS and self._equal_as_text(text, expected):
            # "1:58 am" alone is an answer, though it holds a number.
            return Grade(text.strip(), correct=True)
        extracted = extract_answer(text)
        return Grade(extracted, extracted is not None and self._equal(extracted, expected))

    def _grade_number(self, text: str, expected: str) -> Grade:
        extracted = extract_answer(text)
        number = read_number(extracted or "")
        if number is not None:
            return Grade(_shown(number), number == parse_number(expected))
        if extracted is None or self._benchmark.form == "integer":
            return Grade(extracted, correct=False)
        return Grade(extracted, self._equal(extracted, expected))

    def _equal_as_text(self, answer: str, reference: str) -> bool:
        same = answers_equal if self._kind == "exact" else equal_without_algebra
        return same(answer, reference)

    def _equal(self, answer: str, reference: str) -> bool:
        if self._kind == "exact":
            return answers_equal(answer, reference)
        verdict = compare_numbers(answer, reference)
        return verdict if verdict is not None else self._verifier.verify(answer, reference) is True


def _shown(number: Fraction) -> str:
    """A decimal if that is exact and short, because readers compare with decimals."""
    decimal = f"{float(number):g}"
    return decimal if Fraction(decimal) == number else str(number)


def _reference_text(reference: object) -> str | None:
    if isinstance(reference, str):
        return extract_reference(reference)
    if isinstance(reference, int) or (isinstance(reference, float) and math.isfinite(reference)):
        return str(reference)
    return None
