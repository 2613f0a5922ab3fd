r"""Cheap, exact comparison of two short answers: normalised text, or the same rational number.

Knows typography (`\dfrac`, `\text{}`, `$`, `1{,}234`, a trailing full stop), no algebra.
"""

from __future__ import annotations

import re
from fractions import Fraction

_TEXT_COMMAND = re.compile(r"\\(?:text(?:bf|it|rm)?|math(?:bf|rm|it)|mbox)\s*\{([^{}]*)\}")
_TYPOGRAPHY = re.compile(
    r"\\(?:left|right|displaystyle)(?![A-Za-z])|\\[!,$]|\$|\\?%|\^(?:\\circ|\{\\circ\})|\u00b0"
)
_SPACE = re.compile(r"\\[;: ]|~")
_SPACE_AFTER_COMMA = re.compile(r",\s+")

# Digits are bounded so that a Fraction stays small: `1e999999999` would take gigabytes.
_DECIMAL = r"(?:\d{1,3}(?:,\d{3}){1,9}|\d{1,64}|(?=\.\d))(?:\.\d{1,64})?(?:[eE][-+]?\d{1,2})?"
_NUMBER = re.compile(rf"([-+]?)({_DECIMAL})(?:/(\d{{1,64}}))?")
_FRAC = re.compile(r"([-+]?)\\frac\{(-?\d{1,64})\}\{(\d{1,64})\}")


def answers_equal(answer: str, reference: str) -> bool:
    """True if both are the same number, or the same text after normalisation and not empty."""
    number, reference_number = parse_number(answer), parse_number(reference)
    if number is not None or reference_number is not None:
        return number == reference_number
    comparable = _comparable(answer)
    return comparable != "" and comparable == _comparable(reference)


def canonical_answer(text: str) -> Fraction | str:
    """A key that two answers share exactly if `answers_equal` says they are equal."""
    number = parse_number(text)
    return _comparable(text) if number is None else number


def parse_number(text: str) -> Fraction | None:
    """The exact value of "1,234", "-.5", "3/4", "\\frac{3}{4}", "50%" (50) or "2e3", else None."""
    text = _normalize(text)
    frac = _FRAC.fullmatch(text)
    match = frac or _NUMBER.fullmatch(text)
    if match is None:
        return None
    denominator = int(match[3] or 1)
    if denominator == 0:
        return None
    value = Fraction(match[2].replace(",", "")) / denominator
    return -value if match[1] == "-" else value


def _comparable(text: str) -> str:
    # "2, 600" is a pair, "2,600" may be a number: the space after a comma carries meaning.
    compact = "".join(_SPACE_AFTER_COMMA.sub(";", _normalize(text)).split())
    # Yes and YES are one answer; x and X, or 2a and 2A, are not.
    return compact.casefold() if len(compact) > 1 and compact.isalpha() else compact


def _normalize(text: str) -> str:
    text = text.replace("\u2212", "-").replace("{,}", ",")
    text = text.replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac")
    text = _TYPOGRAPHY.sub("", _TEXT_COMMAND.sub(r"\1", text))
    return _SPACE.sub(" ", text).strip().removesuffix(".").rstrip()
