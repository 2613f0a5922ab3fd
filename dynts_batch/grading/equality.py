r"""Cheap, exact comparison of two short answers: as rational numbers, or as typeset text.

Knows typography (`\dfrac`, `\text{}`, `$`, `1{,}234`, a trailing full stop) and numerals. Knows no
algebra.
"""

from __future__ import annotations

import re
from fractions import Fraction

from dynts_batch.grading.notation.numeral import parse_number
from dynts_batch.grading.notation.typography import typeset

_MAX_CHARS = 10_000  # a longer text is no short answer
_SPACE_AFTER_COMMA = re.compile(r",[\s~]+")
# 3 1/2 is not 31/2, and 2, 600 not 2,600.
_IDLE_SPACE = re.compile(r"(?<![\d,])[\s~]+|[\s~]+(?!\d)")
_NOT_COMPARED = str.maketrans("", "", '~$%°*"')


def answers_equal(answer: str, reference: str) -> bool:
    """True if both are the same number, or the same text after normalisation and not empty."""
    if len(answer) > _MAX_CHARS:
        return answer == reference
    number, reference_number = parse_number(answer), parse_number(reference)
    if number is not None or reference_number is not None:
        return number == reference_number
    comparable = comparable_text(answer)
    return comparable != "" and comparable == comparable_text(reference)


def canonical_answer(text: str) -> Fraction | str:
    """A key that two answers share exactly if `answers_equal` says they are equal."""
    number = parse_number(text)
    return comparable_text(text) if number is None else number


def same_text(answer: str, reference: str) -> bool:
    """Whether both are one typeset text, percent and currency signs included, and not empty."""
    if max(len(answer), len(reference)) > _MAX_CHARS:
        return answer == reference
    mine, theirs = (_one_case(_IDLE_SPACE.sub("", typeset(text))) for text in (answer, reference))
    return mine == theirs != ""


def comparable_text(text: str) -> str:
    """`text` without what makes no difference: typography, spaces, and the case of words."""
    # "2, 600" is a pair and "2,600" may be a number, so the space after a comma carries meaning.
    compact = "".join(_SPACE_AFTER_COMMA.sub(";", typeset(text)).translate(_NOT_COMPARED).split())
    return _one_case(compact)


def _one_case(text: str) -> str:
    """Yes and YES are one answer; x and X, or 2a and 2A, are not."""
    return text.casefold() if len(text) > 1 and text.isalpha() else text
