r"""Numbers as people write them, and the rule for when two of them are the same.

A numeral is exact, whatever its notation: a fraction of integers. Examples are "1,234", "3 1/2",
"0.\overline{3}", "1.6\times 10^{-19}" and "two thirds". Two numerals are the same if their values
are. A rounded value also stands for an exact one in two cases. Both are relative to what is
written, because no absolute bound fits both a charge in coulomb and a prime:

- A decimal with at least six decimals and six significant digits that is the other's correct
  rounding: 0.333333 is 1/3, 0.33 is not. Six decimals are math-verify's `float_rounding`; the
  digits keep 2e-17 apart from -2e-17. From 15 digits on, floating-point noise counts as rounding:
  0.30000000000000004 is 3/10.
- A reference in scientific notation with at least three digits. It is a measured value, to which a
  more precise answer may round: 1.6022e-19 is 1.602e-19. A less precise answer is not equal.

Integers are never rounded: 1000001 is not 1000000.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from dynts_batch.grading.notation.number_words import read_words
from dynts_batch.grading.notation.typography import typeset

_MIN_DECIMALS = 6
_MIN_DIGITS = 6
_MIN_MEASURED_DIGITS = 3

# Digits are bounded so that a Fraction stays small: `1e999999999` would take gigabytes.
_GROUPED = r"\d{1,3}(?:,\d{2,3}){0,9},\d{3}|\d{1,3}(?:[ ~]\d{3}){1,9}|\d{1,3}(?:'\d{3}){1,9}"
_INTEGER = rf"(?:(?:{_GROUPED})(?!\d)|\d{{1,64}})"
_PERIOD = r"\\(?:overline|bar|dot)\s*\{\d{1,32}\}|\(\d{1,32}\)"
_EXPONENT = (
    r"(?:[eE](?P<e>[-+]?\d{1,3})"
    r"|[ ~]*(?:\\times|\\cdot|[x*])[ ~]*10[ ~]*\^[ ~]*"
    r"(?:\{[ ~]*(?P<ten>[-+]?\d{1,3})[ ~]*\}|(?P<bare>[-+]?\d{1,3})))"
)
_DECIMAL = re.compile(
    rf"(?P<integer>{_INTEGER}|(?=\.\d))"
    rf"(?P<point>\.(?P<decimals>\d{{0,64}})(?P<period>{_PERIOD})?(?P<dots>\.\.\.)?)?"
    rf"{_EXPONENT}?"
)
_TEN = re.compile(r"10\^(?:\{([-+]?\d{1,3})\}|(\d))")
_FRACTION = re.compile(
    r"\\frac[ ~]*\{[ ~]*([-+]?[^{}]{1,80})\}[ ~]*\{[ ~]*([-+]?[^{}]{1,80})\}"
    r"|\{?([^{}/]{1,80})\}?/\{?([^{}/]{1,80})\}?"
)
_MIXED = re.compile(
    r"(\d{1,64})(?:[ ~]*(?:and[ ~]+)?\\frac[ ~]*\{(\d{1,64})\}[ ~]*\{(\d{1,64})\}"
    r"|[ ~]+(?:and[ ~]+)?(\d{1,64})/(\d{1,64}))"
)
_REPEATED = re.compile(r"(\d{0,12}?)(\d{1,12}?)\2{1,}")
#: Words for powers of ten.
SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_SCALE = re.compile(rf"(.{{1,80}}?)[ ~]+({'|'.join(SCALES)})", re.IGNORECASE)

_IN_BASE = re.compile(
    r"\(?(?P<digits>\d[0-9A-Za-z]{0,63})\)?_"
    r"(?:(?P<bare>\d{1,2})|\{(?:\\text\{)?(?P<base>\d{1,2})\}{1,2})"
)

#: Where a mixed numeral may begin in a text. `read_numeral` says whether it is one.
MIXED_PATTERN = r"\d{1,64}(?:[ ~]*\\frac\{\d+\}\{\d+\}|[ ~]+\d{1,9}/\d{1,9})"


@dataclass(frozen=True, slots=True)
class Numeral:
    """A number and how precisely it is written."""

    value: Fraction
    decimals: int | None = None
    """Digits after the point, less the power of ten. None: an exact integer or fraction."""
    is_scientific: bool = False

    @property
    def digits(self) -> int | None:
        """Significant digits. None: the number is exact."""
        if self.decimals is None:
            return None
        return len(str(abs(int(self.value * Fraction(10) ** self.decimals))))

    @property
    def half_unit(self) -> Fraction:
        """Half a unit of the last digit; needs `decimals`."""
        assert self.decimals is not None
        return Fraction(1, 2) / Fraction(10) ** self.decimals

    def scaled(self, factor: Fraction) -> Numeral:
        """This number in another unit. Only a power of ten as `factor` keeps its precision."""
        decimals = self.decimals
        for power in range(-30, 31):
            if decimals is not None and factor == Fraction(10) ** power:
                return Numeral(self.value * factor, decimals - power, self.is_scientific)
        return Numeral(self.value * factor)


def agree(answer: Numeral, reference: Numeral) -> bool:
    """Whether they are the same by the module's rule."""
    if answer.value == reference.value:
        return True
    return (
        _is_rounding_of(answer, reference.value)
        or _is_rounding_of(reference, answer.value)
        or _refines(answer, reference)
    )


def agree_with(numeral: Numeral, exact: Fraction, *, is_reference: bool) -> bool:
    """Whether `numeral` stands for an irrational number, of which `exact` is a close fraction."""
    if _is_rounding_of(numeral, exact):
        return True
    return is_reference and _refines(Numeral(exact), numeral)


def read_numeral(text: str) -> Numeral | None:
    """The numeral that `text` is, without percent and currency signs; None if it is none."""
    text = typeset(text).strip("$€£¥₹~ ").rstrip("%°~ ").replace("\\%", "")
    if text.startswith("(") and text.endswith(")") and "," not in text:  # (1,200) is a point
        text = text[1:-1].strip("~ ")
    sign = -1 if text.startswith("-") else 1
    numeral = _unsigned(text[1:].strip("$€£¥₹~ ") if text[:1] in ("-", "+") else text)
    if numeral is None:
        return None
    return Numeral(sign * numeral.value, numeral.decimals, numeral.is_scientific)


def parse_number(text: str) -> Fraction | None:
    """Exact value of "1,234", "-.5", "3 1/2", "\\frac{3}{4}", "50%" (50) or "2e3"; else None."""
    numeral = read_numeral(text)
    return None if numeral is None else numeral.value


def _is_rounding_of(rounded: Numeral, exact: Fraction) -> bool:
    decimals, digits = rounded.decimals, rounded.digits
    if decimals is None or digits is None or decimals < _MIN_DECIMALS or digits < _MIN_DIGITS:
        return False
    is_noise = digits >= 15 and abs(rounded.value - exact) <= abs(exact) / 10**14  # 0.1 + 0.2
    return is_noise or abs(rounded.value - exact) <= rounded.half_unit


def _refines(answer: Numeral, reference: Numeral) -> bool:
    if not reference.is_scientific or (reference.digits or 0) < _MIN_MEASURED_DIGITS:
        return False
    is_precise = answer.digits is None or answer.digits > (reference.digits or 0)
    return is_precise and abs(answer.value - reference.value) <= reference.half_unit


def read_in_base(text: str) -> tuple[str, int] | None:
    """The digits and the base of a numeral that names its base, as 1010_2; None if it is none."""
    found = _IN_BASE.fullmatch(re.sub(r"[\s~]", "", typeset(text)))
    return None if found is None else (found["digits"].upper(), int(found["bare"] or found["base"]))


def _unsigned(text: str) -> Numeral | None:
    if scale := _SCALE.fullmatch(text):
        numeral = _unsigned(scale[1])
        return None if numeral is None else Numeral(numeral.value * 10 ** SCALES[scale[2].lower()])
    if (number := _DECIMAL.fullmatch(text)) and (numeral := _decimal(number)):
        return numeral
    if ten := _TEN.fullmatch(text):
        return Numeral(Fraction(10) ** int(ten[1] or ten[2]))
    value = _mixed(text) if (number := _MIXED.fullmatch(text)) else _fraction(text)
    if value is None and (value := read_words(text)) is None:
        return None
    return Numeral(value)


def _decimal(number: re.Match[str]) -> Numeral | None:
    exponent = int(number["e"] or number["ten"] or number["bare"] or 0)
    integer = re.sub(r"[, ~']", "", number["integer"]) or "0"
    decimals = number["decimals"] or ""
    period = re.sub(r"\D", "", number["period"] or "")
    if number["dots"] and not period:
        repeated = _REPEATED.fullmatch(decimals)
        if repeated is None:
            return None
        decimals, period = repeated[1], repeated[2]
    scale = Fraction(10) ** exponent
    value = Fraction(int(integer + decimals), 10 ** len(decimals))
    if period:
        repeats = Fraction(int(period), (10 ** len(period) - 1) * 10 ** len(decimals))
        return Numeral((value + repeats) * scale)
    is_scientific = any(number[name] for name in ("e", "ten", "bare"))
    if not decimals and not (is_scientific and exponent < 0):
        return Numeral(value * scale)
    return Numeral(value * scale, len(decimals) - exponent, is_scientific)


def _mixed(text: str) -> Fraction | None:
    number = _MIXED.fullmatch(text)
    assert number is not None
    top, bottom = int(number[2] or number[4]), int(number[3] or number[5])
    return int(number[1]) + Fraction(top, bottom) if top < bottom else None


def _fraction(text: str) -> Fraction | None:
    fraction = _FRACTION.fullmatch(text)
    if fraction is None:
        return None
    top, bottom = (
        _simple((a or b).strip(" ~"))
        for a, b in ((fraction[1], fraction[3]), (fraction[2], fraction[4]))
    )
    return top / bottom if top is not None and bottom else None


def _simple(text: str) -> Fraction | None:
    sign = -1 if text.startswith("-") else 1
    number = _DECIMAL.fullmatch(text.lstrip("-+ ~"))
    numeral = _decimal(number) if number is not None else None
    return None if numeral is None else sign * numeral.value
