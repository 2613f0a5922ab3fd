r"""Whether two expressions have the same value, by sympy and math-verify.

Runs in the judge's child process. latex2sympy2 reads an expression. Its value is computed to 30
digits, at a few fixed points if it has variables. Two values are equal if their relative difference
is tiny. This is stricter than math-verify, which does not tell numbers below 1e-17 apart, and it
finds identities that `simplify` misses. Sets and relations have no value; math-verify decides them.

sympy asks for an expression's assumptions in a random order, and contradicts itself on some: a
product of infinities is "zero" once in a hundred orders. So its cache is cleared and its seed set
before every question. An equality that math-verify decides must hold in each of several orders.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import sympy
from latex2sympy2_extended.math_normalization import NormalizationConfig
from math_verify import LatexExtractionConfig, parse, verify
from sympy.core import random
from sympy.core.cache import clear_cache

from dynts_batch.grading.comparison import Comparison
from dynts_batch.grading.notation.numeral import Numeral, agree_with, read_numeral
from dynts_batch.grading.notation.typography import typeset

_SEEDS = (0, 1, 2)
_DIGITS = 30
_MAX_RELATIVE = sympy.Float("1e-15", _DIGITS)
_ZERO = sympy.Float("1e-60", _DIGITS)
# Positive points first, because radicals and logarithms need them; then some with signs. They are
# small and large, so that |x - 2| is not taken for 2 - x.
_POINTS = (
    *(("0.7391", "1.4142", "0.3183"), ("2.6180", "0.5772", "5.2360")),
    *(
        ("9.8696", "7.0710", "3.5449"),
        ("-1.2599", "-0.6931", "1.7320"),
        ("-7.3891", "8.1548", "-4.6692"),
    ),
)
_NUM_POSITIVE = 3
# Units and equations have been read before. Boxes make math-verify read LaTeX from end to end.
_CONFIG = LatexExtractionConfig(
    normalization_config=NormalizationConfig(
        basic_latex=True,
        units=False,
        malformed_operators=True,
        nits=False,
        boxed="all",
        equations=False,
    ),
    boxed_match_priority=0,
)
_MIXED = re.compile(
    r"(?<![\d.}^_])(\d+)[ ~]*\\frac\{(\d+)\}\{(\d+)\}|(?<![\d.}/])(\d+)[ ~]+(\d+)/(\d+)(?![\d/])"
)
_CHOOSE = re.compile(r"\{?\}?(?:_\{?(\d+)\}?)?C_\{?(\d+)\}?(?:\^\{?(\d+)\}?)?")
_EXPONENT = re.compile(r"(\d)[eE]([-+]?\d+)(?![\d.])")
_NATURAL_LOG = re.compile(r"\\log_(?:e(?![A-Za-z])|\{e\})")
_DECIMAL_LOG = re.compile(r"\\lg(?![A-Za-z])")
# The parser takes \gamma for Euler's constant or a function, and \Delta for \delta.
_GREEK = re.compile(r"\\(?:(gamma|Delta)|(Gamma)(?![ ~]*\())(?![A-Za-z_])")
_GREEK_SYMBOLS = {"gamma": "g_{901}", "Delta": "D_{902}", "Gamma": "G_{903}"}
_INDEX = re.compile(r"_[ ]*\{?[ ]*i(?![A-Za-z])")
_IMAGINARY = re.compile(r"(?<=\d)[ ]*i(?![A-Za-z])")


def equal(answer: str, reference: str) -> bool:
    """Whether `answer` says what `reference` says."""
    return Comparison(Mathematics()).equal(answer, reference)


class Mathematics:
    """The algebra of a comparison."""

    def same(self, answer: str, reference: str) -> bool:
        """Whether their values are equal wherever both are defined."""
        random.seed(_SEEDS[0])
        clear_cache()
        expressions = _parse(answer), _parse(reference)
        if not (_INDEX.search(answer) or _INDEX.search(reference)):
            expressions = _with_imaginary(expressions[0]), _with_imaginary(expressions[1])
        if None not in expressions:
            verdict = _same_values(*expressions)
            if verdict:
                return True
            if verdict is False:
                return _is_rounded(answer, expressions[1], is_reference=False) or _is_rounded(
                    reference, expressions[0], is_reference=True
                )
        return all(_verified(seed, answer, reference) for seed in _SEEDS)

    def proportional(self, answer: str, reference: str) -> bool:
        """Whether one is a constant multiple of the other."""
        random.seed(_SEEDS[0])
        clear_cache()
        a, b = _parse(answer), _parse(reference)
        if (
            not (isinstance(a, sympy.Expr) and isinstance(b, sympy.Expr))
            or a.free_symbols != b.free_symbols
        ):
            return False
        quotients = [
            x / y for x, y in _values([a, b]) if x is not None and y is not None and abs(y) > _ZERO
        ]
        return len(quotients) > 1 and all(
            abs(quotient) > _ZERO and _are_close(quotient, quotients[0]) for quotient in quotients
        )


def _parse(text: str) -> Any:
    """The sympy object of typeset LaTeX, with exact numbers; None if it cannot be read as one."""
    found = parse(rf"\boxed{{{_for_parser(text)}}}", [_CONFIG], parsing_timeout=None)
    if not found or isinstance(found[0], str):
        return None
    expression = found[0]
    try:
        floats = {f: sympy.Rational(str(f)) for f in expression.atoms(sympy.Float)}
        return expression.xreplace(floats).doit()
    except (AttributeError, TypeError, ValueError, NotImplementedError):
        return expression


def _with_imaginary(expression: Any) -> Any:
    """`expression` with the imaginary unit for a variable i."""
    if not isinstance(expression, sympy.Expr | sympy.MatrixBase):
        return expression
    names = {s: sympy.I for s in expression.free_symbols if str(s) == "i"}
    return expression.xreplace(names) if names else expression


def _for_parser(text: str) -> str:
    r"""What latex2sympy2 would misread, spelled out: 3 1/2, 30°, 1e-19, C_{10}^{3}, 2i."""
    text = typeset(text)
    text = _MIXED.sub(_mixed, text)
    text = _CHOOSE.sub(_choose, text)
    text = _EXPONENT.sub(r"\1\\cdot 10^{\2}", text)
    text = _NATURAL_LOG.sub(r"\\ln ", text)
    text = _DECIMAL_LOG.sub(r"\\log_{10}", text)
    text = _GREEK.sub(lambda name: f" {_GREEK_SYMBOLS[name[1] or name[2]]} ", text)
    text = _IMAGINARY.sub(r" \\cdot i", text)
    text = re.sub(r"(\d+(?:\.\d+)?)°", r"(\1\\cdot\\frac{\\pi}{180})", text)
    return text.replace("~", " ").replace("%", r"\%").replace("$", "")


def _mixed(number: re.Match[str]) -> str:
    whole, top, bottom = (
        a or b for a, b in zip(number.groups()[:3], number.groups()[3:], strict=True)
    )
    is_mixed = int(top) < int(bottom)
    return rf"({whole}+\frac{{{top}}}{{{bottom}}})" if is_mixed else number[0]


def _choose(found: re.Match[str]) -> str:
    if found[1] is None and found[3] is not None:
        return rf"\binom{{{found[2]}}}{{{found[3]}}}"
    return (
        rf"\binom{{{found[1]}}}{{{found[2]}}}"
        if found[1] is not None and found[3] is None
        else found[0]
    )


def _same_values(a: Any, b: Any) -> bool | None:
    """None if there are no values to compare."""
    if isinstance(a, sympy.MatrixBase) and isinstance(b, sympy.MatrixBase):
        if a.shape != b.shape:
            return False
        verdicts = [_same_values(x, y) for x, y in zip(a.flat(), b.flat(), strict=True)]
        return None if None in verdicts else all(verdicts)
    if not (isinstance(a, sympy.Expr) and isinstance(b, sympy.Expr)):
        return None
    if a.is_Rational and b.is_Rational:
        return bool(a == b)
    values = list(_values([a, b]))
    known = [(x, y) for x, y in values if x is not None and y is not None]
    return all(_are_close(x, y) for x, y in known) if known else None


def _values(expressions: Sequence[sympy.Expr]) -> list[tuple[Any, ...]]:
    """The values of `expressions` at each point; None for one that has none there."""
    symbols = sorted(set().union(*(e.free_symbols for e in expressions)), key=str)
    points = _POINTS if symbols else _POINTS[:1]
    found = []
    for number, point in enumerate(points):
        # Powers of the coordinates give every variable its own value, however many there are.
        places = {
            s: sympy.Rational(point[i % 3]) ** (1 + i // 3) + i // 3 for i, s in enumerate(symbols)
        }
        values = tuple(_value(e, places) for e in expressions)
        has_signs = number >= _NUM_POSITIVE
        if has_signs and any(value is not None and not value.is_real for value in values):
            continue  # a power or logarithm of a negative number: branches may differ
        found.append(values)
    return found


def _value(expression: sympy.Expr, places: dict[Any, Any]) -> Any:
    try:
        value = expression.subs(places).evalf(_DIGITS)
    except (
        ArithmeticError,
        AttributeError,
        TypeError,
        ValueError,
        NotImplementedError,
        RecursionError,
    ):
        return None
    is_number = (
        getattr(value, "is_number", False)
        and value.is_finite
        and not value.has(sympy.nan, sympy.zoo)
    )
    return (
        value
        if is_number and all(part.is_Float or part.is_Rational for part in value.as_real_imag())
        else None
    )


def _are_close(a: Any, b: Any) -> bool:
    size = max(abs(a), abs(b))
    return bool(size < _ZERO or abs(a - b) <= size * _MAX_RELATIVE)


def _is_rounded(text: str, exact: Any, *, is_reference: bool) -> bool:
    """Whether `text` is a number that stands for `exact` by the rule in `numeral.py`."""
    numeral: Numeral | None = read_numeral(text)
    if numeral is None or not isinstance(exact, sympy.Expr) or exact.free_symbols:
        return False
    value = _value(exact, {})
    if value is None or not value.is_real:
        return False
    return agree_with(numeral, Fraction(str(value)), is_reference=is_reference)


def _verified(seed: int, answer: str, reference: str) -> bool:
    """math-verify's verdict, which does not depend on what this process judged before."""
    clear_cache()
    random.seed(seed)
    gold, target = (
        parse(rf"\boxed{{{_for_parser(text)}}}", [_CONFIG], parsing_timeout=None)
        for text in (reference, answer)
    )
    return bool(verify(gold, target, timeout_seconds=None))
