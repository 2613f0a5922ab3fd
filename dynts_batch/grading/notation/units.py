"""Units of measurement: which exist, what they are multiples of, and how a text names them.

A unit is a factor and its dimensions, so that cm/s, "meters per second" and m s^{-1} can be
compared. Currencies are dimensions of their own. The caller handles what is no unit ("apples").
Knows nothing about numbers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

Dimensions = tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Unit:
    """`factor` times the base units in `dimensions`: (name, power) each, sorted by name."""

    factor: Fraction
    dimensions: Dimensions

    def times(self, other: Unit, power: int) -> Unit:
        """This unit times `other` to `power`."""
        powers = dict(self.dimensions)
        for name, its in other.dimensions:
            powers[name] = powers.get(name, 0) + its * power
        kept = tuple(sorted((name, its) for name, its in powers.items() if its))
        return Unit(self.factor * other.factor**power, kept)


NO_UNIT = Unit(Fraction(1), ())


def _unit(factor: str, **powers: int) -> Unit:
    return Unit(Fraction(factor), tuple(sorted(powers.items())))


_PREFIXES = {
    "n": ("nano", -9), "μ": ("micro", -6), "u": ("micro", -6), "m": ("milli", -3),
    "c": ("centi", -2), "d": ("deci", -1), "k": ("kilo", 3), "M": ("mega", 6), "G": ("giga", 9),
    "T": ("tera", 12), "p": ("pico", -12),
}  # fmt: skip
_JOULE = {"kg": 1, "m": 2, "s": -2}
#: symbol: (names, unit). All of them take the prefixes.
_SI = {
    "m": ("meter metre", _unit("1", m=1)), "g": ("gram gramme", _unit("1/1000", kg=1)),
    "s": ("second sec", _unit("1", s=1)), "L": ("liter litre", _unit("1/1000", m=3)),
    "N": ("newton", _unit("1", kg=1, m=1, s=-2)), "J": ("joule", _unit("1", **_JOULE)),
    "W": ("watt", _unit("1", kg=1, m=2, s=-3)), "A": ("ampere amp", _unit("1", A=1)),
    "C": ("coulomb", _unit("1", A=1, s=1)), "V": ("volt", _unit("1", kg=1, m=2, s=-3, A=-1)),
    "ohm": ("ohm", _unit("1", kg=1, m=2, s=-3, A=-2)),
    "F": ("farad", _unit("1", kg=-1, m=-2, s=4, A=2)), "T": ("tesla", _unit("1", kg=1, s=-2, A=-1)),
    "Wb": ("weber", _unit("1", kg=1, m=2, s=-2, A=-1)),
    "H": ("henry", _unit("1", kg=1, m=2, s=-2, A=-2)), "Hz": ("hertz", _unit("1", s=-1)),
    "Pa": ("pascal", _unit("1", kg=1, m=-1, s=-2)), "K": ("kelvin", _unit("1", K=1)),
    "mol": ("mole", _unit("1", mol=1)), "eV": ("electronvolt", _unit("1.602176634e-19", **_JOULE)),
    "cal": ("calorie", _unit("4.184", **_JOULE)), "bar": ("bar", _unit("100000", kg=1, m=-1, s=-2)),
    "b": ("bit", _unit("1", bit=1)), "B": ("byte", _unit("8", bit=1)),
}  # fmt: skip
_OTHERS = {
    "min mins minute": _unit("60", s=1), "h hr hrs hour": _unit("3600", s=1),
    "day": _unit("86400", s=1), "week wk": _unit("604800", s=1),
    "year yr yrs": _unit("12", month=1), "month": _unit("1", month=1),
    "decade": _unit("120", month=1), "century centurie": _unit("1200", month=1),
    "in inch inche": _unit("0.0254", m=1), "ft foot feet": _unit("0.3048", m=1),
    "yd yard": _unit("0.9144", m=1), "mi mile": _unit("1609.344", m=1),
    "mph": _unit("0.44704", m=1, s=-1), "kmh kph": Unit(Fraction(5, 18), (("m", 1), ("s", -1))),
    "angstrom": _unit("1e-10", m=1), "lb lbs pound": _unit("0.45359237", kg=1),
    "oz ounce": _unit("0.028349523125", kg=1), "t ton tonne": _unit("1000", kg=1),
    "gal gallon": _unit("3.785411784e-3", m=3), "qt quart": _unit("9.46352946e-4", m=3),
    "pt pint": _unit("4.73176473e-4", m=3), "cup": _unit("2.365882365e-4", m=3),
    "l": _unit("1/1000", m=3), "ml": _unit("1e-6", m=3), "cc": _unit("1e-6", m=3),
    "acre": _unit("4046.8564224", m=2), "ha hectare": _unit("10000", m=2),
    "erg": _unit("1e-7", **_JOULE), "kWh": _unit("3600000", **_JOULE),
    "atm": _unit("101325", kg=1, m=-1, s=-2), "hp horsepower": _unit("745.7", kg=1, m=2, s=-3),
    "° deg degree": _unit("1", degree=1), "°C": _unit("1", celsius=1),
    "°F": _unit("1", fahrenheit=1), "rad radian": _unit("1", radian=1),
    "$ USD dollar buck": _unit("1", USD=1), "¢ cent": _unit("0.01", USD=1),
    "€ EUR euro": _unit("1", EUR=1), "£ GBP": _unit("1", GBP=1), "¥ JPY yen": _unit("1", JPY=1),
    "RMB CNY yuan": _unit("1", CNY=1), "₹ INR Rs Rs. rupee": _unit("1", INR=1),
    "₩ won": _unit("1", KRW=1), "unit units": NO_UNIT, "st nd rd th": NO_UNIT,
}  # fmt: skip

CURRENCY_SIGNS = "$€£¥₹₩¢"


def _all_units() -> dict[str, Unit]:
    found: dict[str, Unit] = {}
    for symbol, (names, unit) in _SI.items():
        found |= dict.fromkeys((symbol, *names.split()), unit)
        for prefix, (name, power) in _PREFIXES.items():
            scaled = Unit(unit.factor * Fraction(10) ** power, unit.dimensions)
            found |= dict.fromkeys(
                (prefix + symbol, *(name + its for its in names.split())), scaled
            )
    for names_of, unit in _OTHERS.items():
        found |= dict.fromkeys(names_of.split(), unit)
    return found


_UNITS = _all_units()
_TOKEN = re.compile(
    r"(?P<slash>/|\bper\b|\ban?\b(?=[ ~]))"
    r"|(?P<word>°[CF](?![A-Za-z])|[A-Za-z\u03bc]+\.?|[$€£¥₹₩¢°])"
    r"(?:\^[ ~]*(?:\{[ ~]*(?P<power>[-+]?\d)[ ~]*\}|(?P<bare>[-+]?\d)))?"
    r"|(?P<dot>\\cdot(?![A-Za-z])|[ ~*.\u00b7-]+)"
)
_POWER_WORDS = {"square": 2, "squared": 2, "sq": 2, "cubic": 3, "cubed": 3, "cu": 3}


def parse_unit(text: str) -> Unit | None:
    """The unit that all of typeset `text` names; None if it names none. "" is `NO_UNIT`."""
    unit, sign, next_power, position, last = NO_UNIT, 1, 1, 0, None
    while position < len(text):
        token = _TOKEN.match(text, position)
        if token is None:
            return None
        position = token.end()
        if token["slash"]:
            sign = -1
        elif token["word"]:
            word = token["word"].rstrip(".")
            if word.lower() in _POWER_WORDS:
                next_power = _POWER_WORDS[word.lower()]
                if word.lower() in ("squared", "cubed") and last is not None:
                    unit, next_power = unit.times(last, sign * (next_power - 1)), 1
                continue
            last = _find(word)
            if last is None:
                return None
            unit = unit.times(last, sign * next_power * int(token["power"] or token["bare"] or 1))
            next_power = 1
    return unit


def _find(word: str) -> Unit | None:
    """The unit of a symbol as it is written, or of a name in any case, singular or plural."""
    if word in _UNITS:
        return _UNITS[word]
    lower = word.lower()
    names = (lower, lower.removesuffix("s"), lower.removesuffix("es"))
    return next((_UNITS[name] for name in names if len(name) > 2 and name in _UNITS), None)
