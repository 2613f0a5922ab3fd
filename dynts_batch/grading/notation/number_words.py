"""Number words: "eighteen", "two hundred and five", "three quarters", "one half", "十八"."""

from __future__ import annotations

import re
from fractions import Fraction

_VALUES = {
    **{"zero": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7},
    **{"eight": 8, "nine": 9, "ten": 10, "eleven": 11, "twelve": 12, "thirteen": 13},
    **{"fourteen": 14, "fifteen": 15, "sixteen": 16, "seventeen": 17, "eighteen": 18},
    **{"nineteen": 19, "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60},
    **{"seventy": 70, "eighty": 80, "ninety": 90},
}  # fmt: skip
_PARTS = {
    **{"half": 2, "halves": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6},
    **{"seventh": 7, "eighth": 8, "ninth": 9, "tenth": 10},
}  # fmt: skip
_CHINESE_DIGITS = {digit: value for value, digit in enumerate("零一二三四五六七八九")} | {
    "\u3007": 0,
    "两": 2,
}
_CHINESE_SCALES = {"十": 10, "百": 100, "千": 1000}
_CHINESE = re.compile(rf"[{''.join(_CHINESE_DIGITS)}{''.join(_CHINESE_SCALES)}万]+")
_MAX_CHARS = 80


def read_words(text: str) -> Fraction | None:
    """The number that `text` spells; None if it spells none."""
    if len(text) > _MAX_CHARS or not text[:1].isalpha():
        return None
    if _CHINESE.fullmatch(text):
        return _chinese(text)
    words = [word for word in re.split(r"[\s~-]+", text.lower()) if word != "and"]
    if not words:
        return None
    part = _PARTS.get(words[-1]) or _PARTS.get(words[-1].removesuffix("s"))
    if part is None:
        value = _integer(words)
    else:
        value = 1 if words[:-1] in ([], ["a"]) else _integer(words[:-1])
        if words[:-1] == [] and part != 2:  # "third" alone is an ordinal
            return None
    return None if value is None else Fraction(value, part or 1)


def _integer(words: list[str]) -> int | None:
    total = part = 0
    for word in words:
        if word in _VALUES:
            part += _VALUES[word]
        elif word == "hundred":
            part *= 100
        elif word == "thousand":
            total, part = total + 1000 * part, 0
        else:
            return None
    return total + part if words else None


def _chinese(text: str) -> Fraction:
    total = part = digit = 0
    for char in text:
        if char in _CHINESE_DIGITS:
            digit = _CHINESE_DIGITS[char]
        elif char == "万":
            total, part, digit = (part + digit) * 10_000, 0, 0
        else:
            part, digit = part + (digit or 1) * _CHINESE_SCALES[char], 0
    return Fraction(total + part + digit)
