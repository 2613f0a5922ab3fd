r"""A value and its unit: "18 apples", "\$1,080", "36\sqrt{7} cm^3", "1 hour 30 minutes", "25%".

What follows a value is a unit only if it cannot be algebra: 2 h is two hours, and 2h is twice h.
After a fraction or a root one or two letters are algebra, unless they come from `\text{}`,
`\mathrm{}` or `\,`, which typeset text shows as `~`.
The caller may make one exception (`may_be_attached`): an answer `5m` to a question whose answer is
a number.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from dynts_batch.grading.notation.numeral import SCALES, Numeral, read_numeral
from dynts_batch.grading.notation.units import CURRENCY_SIGNS, NO_UNIT, Unit, parse_unit

_HEDGE = re.compile(
    r"(?:\\approx[ ~]*|(?:about|approximately|approx\.?|roughly|exactly|only|around)[ ~]+)", re.I
)
_CURRENCY = re.compile(
    rf"([-+]?)[ ~]*([{CURRENCY_SIGNS}]|Rs\.?[ ~]|(?:US|USD|EUR)[ ~]*\$?(?=[ ~]*\d))[ ~]*"
)
_VALUE = re.compile(
    r"[-+]?[ ~]*(?:\d{1,64}(?:[ ~]*\\frac\{\d+\}\{\d+\}|[ ~]+\d{1,9}/\d{1,9})"
    r"|\\frac\{[^{}]{1,80}\}\{[^{}]{1,80}\}"
    r"|(?:\d[\d,']*|(?=\.\d))(?:[ ~]\d{3}(?!\d))*(?:\.\d*)?"
    r"(?:\\(?:overline|bar|dot)\{\d+\}|\.\.\.)?(?:[eE][-+]?\d{1,3}(?!\d))?"
    r"(?:[ ~]*(?:\\times|\\cdot|[x*])[ ~]*10[ ~]*\^[ ~]*(?:\{[^{}]{1,8}\}|[-+]?\d+))?"
    r"(?:/\d+)?|10\^(?:\{[-+\d]{1,8}\}|\d))"
    rf"(?:[ ~]*(?:{'|'.join(SCALES)})\b)?",
    re.IGNORECASE,
)
_PERCENT = re.compile(
    r"[ ~]*(?:%|per[ ~]?cent(?:age(?:[ ~]points?)?)?\b|pct\b)[ ~]*", re.IGNORECASE
)
_NOUN = re.compile(r"[A-Za-z][A-Za-z'.~ -]*")
_NO_NOUNS = frozenset(
    {"or", "and", "not", "to", "nor", "but", "plus", "minus", "times", "if", "when", "than", "is"}
)
_FILLERS = re.compile(
    r"^(?:more|less|fewer|total|extra|full|whole|additional|of|in|the)[ ~]+", re.IGNORECASE
)
_LETTER_UNIT = re.compile(r"[A-Za-z](?:\^.*)?")
#: What may be a product of variables: s^2, mg, kT. No product is written cm or kg.
_LETTERS = re.compile(r"(?!(?:[cmk]m|kg|ft|in|yd|mi|hr|lb|oz)(?![A-Za-z]))[A-Za-z]{1,2}(?:\^.*)?")
_PRODUCT = re.compile(r"[A-Za-z]{1,2}|[b-df-hj-np-tv-z]{3}")
_FRACTION = re.compile(r"\\frac|/")
_BARE_UNITS = re.compile(
    r"(?:(?:square|cubic|sq\.?|cu\.?)[ ~]+)?units?(?:[ ~]+(?:squared|cubed)|\^\{?[23]\}?)?",
    re.IGNORECASE,
)
_IN_COMMAND = re.compile(r"\\[A-Za-z]*$")
_UNIT_START = re.compile(r"(?<=[\d})~ a-z])(?=[A-Za-z°$€£\u03bc])")
_LATEX_WORD = re.compile(r"\\[A-Za-z]+|(?<![A-Za-z])[ei](?![A-Za-z])")
_SIGNS = frozenset("°%" + CURRENCY_SIGNS)
_MICRO = re.compile(r"\\mu(?![A-Za-z])[ ~]*(?=[A-Za-z])")
_ANGLE_FUNCTION = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])")
_MAX_WORDS = 6


@dataclass(frozen=True, slots=True)
class Quantity:
    """A value, in typeset text, and what stands beside it."""

    text: str
    numeral: Numeral | None = None
    """The number that `text` is; None if it is none."""
    unit: Unit | None = None
    """None: there is none, or `noun` stands for it."""
    noun: str = ""
    is_percent: bool = False

    @property
    def is_bare(self) -> bool:
        return self.unit is None and not self.noun and not self.is_percent

    @property
    def has_variables(self) -> bool:
        """Whether letters other than those of commands, e and i stand in `text`."""
        return self.numeral is None and _has_variables(self.text)


def read_quantity(text: str, *, may_be_attached: bool = False) -> Quantity:
    """The quantity that typeset `text` is. If nothing else fits, an expression without a unit."""
    text = _HEDGE.sub("", text, count=1) if _HEDGE.match(text) else text
    if not set(text) & _SIGNS and (numeral := read_numeral(text)) is not None:
        return Quantity(text, numeral)
    if (currency := _CURRENCY.match(text)) is not None:
        sign, unit = currency[1], parse_unit(currency[2].strip("~ "))
        value = read_quantity(sign + text[currency.end() :])
        is_same = value.unit in (None, unit)  # "$18 USD"
        return Quantity(value.text, value.numeral, unit, value.noun) if is_same else Quantity(text)
    return (
        _number_and_rest(text, may_be_attached=may_be_attached)
        or read_sum(text)
        or _expression(text, may_be_attached=may_be_attached)
    )


def _number_and_rest(text: str, *, may_be_attached: bool) -> Quantity | None:
    value = _VALUE.match(text)
    head, rest = (value[0], text[value.end() :]) if value is not None else _spelled(text)
    numeral = read_numeral(head) if head else None
    if numeral is None:
        return None
    if (percent := _PERCENT.match(rest)) is not None:
        rest = rest[percent.end() :]
        is_noun = not rest or _is_noun(rest)
        return Quantity(head, numeral, is_percent=True) if is_noun else None
    is_marked, is_apart = rest[:1] == "~", rest[:1] in ("~", " ", "°", "-")
    is_hyphened = rest.lstrip("~ ").startswith("-")
    rest = _MICRO.sub("\u03bc", rest.strip("~ -:"))
    if is_hyphened and _LETTERS.fullmatch(rest):  # 5 - s
        return None
    if not is_apart and _LETTER_UNIT.fullmatch(rest) and not may_be_attached:
        return None
    if not (is_marked or may_be_attached or not _FRACTION.search(head)) and _LETTERS.fullmatch(
        rest
    ):
        return None
    unit = parse_unit(rest)
    if unit is not None:
        return Quantity(head, numeral, None if unit == NO_UNIT else unit)
    if not _is_noun(rest) or not (is_apart or len(rest) > 2):
        return None
    if not is_marked and _PRODUCT.fullmatch(rest):
        return None
    return Quantity(head, numeral, *_named(rest))


def _spelled(text: str) -> tuple[str, str]:
    """The longest number in words that `text` begins with, and the rest."""
    words = text.replace("~", " ").split(" ")[: _MAX_WORDS + 1]
    for count in range(len(words) - 1, 0, -1):
        head = " ".join(words[:count])
        if read_numeral(head) is not None:
            return head, text[len(head) :]
    return "", text


def _is_noun(rest: str) -> bool:
    words = rest.replace("~", " ").split()
    is_text = _NOUN.fullmatch(rest) is not None and not _NO_NOUNS.intersection(
        word.lower() for word in words
    )
    return is_text and all(len(word) > 1 or word in ("a", "A") for word in words)


def _named(noun: str) -> tuple[Unit | None, str]:
    """The unit that a noun phrase begins with ("hours of sleep", "more minutes"), or the phrase."""
    phrase = _FILLERS.sub("", noun)
    words = phrase.replace("~", " ").split(" ")
    for count in range(len(words), 0, -1):
        unit = parse_unit(" ".join(words[:count]))
        if unit is not None and len(words[0]) > 2:
            return (None if unit == NO_UNIT else unit), ""
    return None, phrase


def read_sum(text: str) -> Quantity | None:
    """ "1 hour 30 minutes", "5 feet, 6 inches": the sum, in the first unit."""
    parts = re.split(r"(?<=[A-Za-z.])[ ~]*(?:,|and\b)?[ ~]+(?:and[ ~]+)?(?=\d)", text)
    if len(parts) < 2:
        return None
    quantities = [_number_and_rest(part.strip("~ "), may_be_attached=False) for part in parts]
    first = quantities[0]
    if first is None or first.unit is None or first.numeral is None:
        return None
    total = first.numeral.value
    for part in quantities[1:]:
        if (
            part is None
            or part.numeral is None
            or part.unit is None
            or part.unit.dimensions != first.unit.dimensions
        ):
            return None
        total += part.numeral.value * part.unit.factor / first.unit.factor
    return Quantity(str(total), Numeral(total), first.unit)


def _expression(text: str, *, may_be_attached: bool) -> Quantity:
    """`text` without the unit at its end. A unit stands apart, and never after variables."""
    if text.endswith("%"):
        return Quantity(text[:-1].rstrip("~ "), is_percent=True)
    for start in _UNIT_START.finditer(text):
        head, tail = text[: start.start()], text[start.start() :]
        value = head.strip("~ ")
        if tail == "°" and _ANGLE_FUNCTION.search(head):  # degrees of the function's argument
            break
        if not value or _IN_COMMAND.search(head) or (head[-1].isalpha() and "\\" not in head[-10:]):
            continue
        if _BARE_UNITS.fullmatch(tail):
            return Quantity(value, read_numeral(value))
        if _has_variables(value) or not _stands_apart(head, tail, may_be_attached=may_be_attached):
            continue
        unit = parse_unit(tail)
        if unit not in (None, NO_UNIT):
            return Quantity(value, read_numeral(value), unit)
        if head.endswith("~") and re.search(r"\d", value) and len(tail) > 2 and _is_noun(tail):
            return Quantity(value, read_numeral(value), *_named(tail))
    return Quantity(text, read_numeral(text))


def _stands_apart(head: str, tail: str, *, may_be_attached: bool) -> bool:
    """Whether `tail` is no factor of `head`: a word, or letters behind a space that was meant."""
    if _LETTERS.fullmatch(tail) is None or head.endswith("~"):
        return True
    return may_be_attached and head.endswith(" ") and head.rstrip()[-1:] in set("0123456789})")


def _has_variables(text: str) -> bool:
    return re.search("[A-Za-z]", _LATEX_WORD.sub("", text)) is not None
