r"""How the answers of well-known benchmarks are read: one entry each, for `grading.benchmark`.

Without an entry the grader goes by the reference: a letter is a multiple-choice key, and all else
is mathematics. An entry is stricter if its benchmark is: an AIME answer that is no integer is
wrong, whatever it equals.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from dynts_batch.grading.extract import NUMBER
from dynts_batch.grading.notation.numeral import SCALES, parse_number


@dataclass(frozen=True, slots=True)
class AnswerForm:
    """The form of a benchmark's answers.

    - `expression`: any mathematics, as the reference is.
    - `number`: a number. Units and a choice label do not matter. With `grading.kind=math` an
      expression that equals it counts too.
    - `integer`: nothing but an integer.
    - `choice`: one of `letters`.
    """

    form: Literal["expression", "number", "integer", "choice"]
    letters: str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    """Keys of multiple-choice questions, which any benchmark may hold."""


ANSWER_FORMS = {
    "aime": AnswerForm("integer"),  # 0 to 999, "033" is 33
    "amc": AnswerForm("number", letters="ABCDE"),  # "27.0" in the data, "(C) 27" in answers
    "math": AnswerForm("expression"),
    "gaokao": AnswerForm("expression", letters="ABCDE"),
    "gpqa": AnswerForm("choice", letters="ABCD"),
    "gsm8k": AnswerForm("number"),  # "#### 1,080" in the data, "$1,080" and "18 dollars" in answers
}

_CHOICE_LABEL = re.compile(r"\W*(?:text|math)?(?:bf|rm)?\W*\(?[A-E][).:]+(?:[\s}~]|\\ )*")
_SCALE = "|".join([*SCALES, "dozen"])
_SCALE_WORD = re.compile(rf"\b(?:{_SCALE})\b", re.IGNORECASE)
_UNIT = re.compile(
    r"(?:\\(?:text|mathrm|mbox)\s*\{[^{}]*\}"
    rf"|\s(?!(?i:{_SCALE})\b)(?:[A-Za-z.]{{2,}}|[AaCFgHhJKLlmNsVW](?![A-Za-z])))"
    r"(?:\s*\^\{?[23]\}?)?"
    r"|\\(?:circ|,|;|!|\$|%)"
)
_DECORATION = re.compile(r"[\s$.{}~\u00b0\u20ac\u00a3^]*")


def read_number(text: str) -> Fraction | None:
    r"""The one number that a short answer states; None if it has none, several, or an expression.

    Examples: "18", "x = 18", "\$1,080", "(C) 27 \text{ cm}^2".
    """
    label = _CHOICE_LABEL.match(text)
    text = text[label.end() :] if label is not None else text
    for candidate in (text, text.rpartition("=")[2]):
        number = parse_number(candidate)
        if number is not None:
            return number
    text = f" {text.rpartition('=')[2].replace('{,}', ',')}"
    bare = " ".join(_UNIT.sub(_scale_alone, text).split())
    found = NUMBER.search(bare)
    if found is None or not _DECORATION.fullmatch(bare[: found.start()] + bare[found.end() :]):
        return None
    return parse_number(found[0])


def _scale_alone(unit: re.Match[str]) -> str:
    """What is left of a unit: nothing, or the "million" of "million dollars"."""
    scale = _SCALE_WORD.search(unit[0])
    return f" {scale[0]} " if scale is not None else " "
