r"""Sets of reals: `[2,\infty)`, "x \ge 2", `\{x | x \ge 2\}`, `\mathbb{R} \setminus \{0\}`.

A set, or a union of sets, is its intervals. Their ends stay text: whoever compares numbers compares
them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

from dynts_batch.grading.notation.numeral import parse_number
from dynts_batch.grading.notation.structure import (
    Builder,
    Group,
    Reading,
    Relation,
    Words,
    read,
    split,
)
from dynts_batch.grading.notation.typography import typeset

MINUS_INFINITY, INFINITY = r"-\infty", r"\infty"

_INFINITY = re.compile(r"([-+]?)[ ~]*(?:\\infty|infinity|oo)", re.IGNORECASE)
_VARIABLE = re.compile(r"(?:[A-Za-z]|\\[a-z]+)(?:_(?:\w|\{\w+\}))?")
_IN_REALS = re.compile(r"[ ~]*\\in[ ~]*(?:\\mathbb\{R\}|R)$")
_CUP = re.compile(r"\\cup(?![A-Za-z])")
_REALS = re.compile(r"\\mathbb\{R\}|R")
_WITHOUT = re.compile(r"(?:\\mathbb\{R\}|R)[ ~]*(?:\\setminus|\\backslash|-)[ ~]*\\\{(.*)\\\}")
_ALL_WORDS = {("all", "real", "number"), ("all", "real"), ("real", "number"), ("all", "real", "x")}


@dataclass(frozen=True, slots=True)
class Interval:
    low: str
    has_low: bool
    high: str
    has_high: bool


@dataclass(frozen=True, slots=True)
class RealSet:
    intervals: tuple[Interval, ...]
    variable: str | None = None
    """The name that the condition was written about."""


_EVERYTHING = Interval(MINUS_INFINITY, has_low=False, high=INFINITY, has_high=False)


def read_real_set(text: str) -> RealSet | None:
    """The set of reals that a short answer is or states; None if it is none."""
    text = typeset(text)
    if _REALS.fullmatch(text):
        return RealSet((_EVERYTHING,))
    if without := _WITHOUT.fullmatch(text):
        return _without(tuple(split(without[1], ",")), None)
    parts = _CUP.split(text)
    if len(parts) > 1:
        return _union([read_real_set(part.strip("~ ")) for part in parts])
    return _of_reading(read(text), says_or=_OR.search(text) is not None)


def _of_reading(reading: Reading, *, says_or: bool) -> RealSet | None:
    match reading:
        case Words(words) if words in _ALL_WORDS:
            return RealSet((_EVERYTHING,))
        case Group("tuple", (low, high), brackets):
            return _interval(low, brackets[0] == "[", high, brackets[1] == "]")
        case Group("list", items):
            sets = [read_real_set(item) if _SIGNS.search(item) else None for item in items]
            return _union(sets) if says_or else _intersection(sets)
        case Builder(subject, (condition,)):
            real_set = read_real_set(condition)
            variable = _IN_REALS.sub("", subject)
            return real_set if real_set is not None and real_set.variable == variable else None
        case Relation():
            return _of_relation(reading)
    return None


_OR = re.compile(r"(?<![A-Za-z])or(?![A-Za-z])", re.IGNORECASE)
_SIGNS = re.compile(r"[<>]|\\(?:le|ge|ne|in)(?![A-Za-z])")


def _of_relation(relation: Relation) -> RealSet | None:
    match relation.terms, relation.signs:
        case (variable, value), (r"\in",):
            real_set = read_real_set(value)
            return None if real_set is None else RealSet(real_set.intervals, variable)
        case (variable, value), (r"\ne",) if _is_variable(variable, value):
            return _without((value,), variable)
        case (variable, high), (sign,) if sign in ("<", r"\le") and _is_variable(variable, high):
            return _named(_interval(MINUS_INFINITY, False, high, sign == r"\le"), variable)
        case (low, variable), (sign,) if sign in ("<", r"\le") and _is_variable(variable, low):
            return _named(_interval(low, sign == r"\le", INFINITY, False), variable)
        case (low, variable, high), (first, second) if _is_variable(variable, low + high):
            if {first, second} <= {"<", r"\le"}:
                return _named(_interval(low, first == r"\le", high, second == r"\le"), variable)
    return None


def _is_variable(term: str, bound: str) -> bool:
    return (
        _VARIABLE.fullmatch(term) is not None
        and _VARIABLE.fullmatch(bound) is None
        and term not in bound
    )


def _interval(low: str, has_low: bool, high: str, has_high: bool) -> RealSet | None:
    low, high = _end(low), _end(high)
    numbers = parse_number(low), parse_number(high)
    if low == INFINITY or high == MINUS_INFINITY:
        return None
    if numbers[0] is not None and numbers[1] is not None and numbers[0] > numbers[1]:
        return None
    interval = Interval(low, has_low and low != MINUS_INFINITY, high, has_high and high != INFINITY)
    return RealSet((interval,))


def _end(text: str) -> str:
    infinite = _INFINITY.fullmatch(text.strip("~ "))
    if infinite is None:
        return text.strip("~ ")
    return MINUS_INFINITY if infinite[1] == "-" else INFINITY


def _named(real_set: RealSet | None, variable: str) -> RealSet | None:
    return None if real_set is None else RealSet(real_set.intervals, variable)


def _without(points: tuple[str, ...], variable: str | None) -> RealSet | None:
    """All reals but `points`."""
    numbers = [parse_number(point) for point in points]
    if len(points) > 1 and None in numbers:
        return None
    order = sorted(range(len(points)), key=lambda i: numbers[i] or 0)
    ends = [MINUS_INFINITY, *(points[i].strip("~ ") for i in order), INFINITY]
    intervals = (Interval(a, has_low=False, high=b, has_high=False) for a, b in pairwise(ends))
    return RealSet(tuple(intervals), variable)


def _intersection(parts: list[RealSet | None]) -> RealSet | None:
    """The interval of "x > 2 and x < 5", "and" or a comma between them; None if it is none."""
    match parts:
        case [RealSet((a,), x), RealSet((b,), y)] if x == y and x is not None:
            low, high = (a, b) if a.high == INFINITY else (b, a)
            if high.low == MINUS_INFINITY and low.high == INFINITY:
                found = _interval(low.low, low.has_low, high.high, high.has_high)
                return _named(found, x)
    return None


def _union(parts: list[RealSet | None]) -> RealSet | None:
    sets = [part for part in parts if part is not None]
    variables = {part.variable for part in sets}
    if len(sets) < len(parts) or len(variables) > 1:
        return None
    return RealSet(tuple(interval for part in sets for interval in part.intervals), *variables)
