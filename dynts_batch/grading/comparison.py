"""Whether two answers are the same, by what they are. Structure is compared here.

Both sides are read first. Lists are compared in any order, tuples in theirs, intervals by their
ends, times as times, and values by their units. Only plain expressions are left to an `Algebra`, so
it never matters what a parser of mathematics would make of "10:30" or "3 1/2". The order of the
arguments does matter: a reference decides what an answer may leave out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeVar

from dynts_batch.grading.algebra import Algebra, NoAlgebra
from dynts_batch.grading.definitions import definition, is_name, name_one_thing
from dynts_batch.grading.equality import same_text
from dynts_batch.grading.notation.clock import Clock
from dynts_batch.grading.notation.numeral import parse_number, read_in_base
from dynts_batch.grading.notation.quantity import Quantity
from dynts_batch.grading.notation.real_sets import Interval, RealSet, read_real_set
from dynts_batch.grading.notation.structure import (
    Builder,
    Group,
    Matrix,
    Ratio,
    Reading,
    Relation,
    Words,
    read,
    split_items,
)
from dynts_batch.grading.values import same_quantity

_T = TypeVar("_T")
_SET_OR_MATRIX = re.compile(r"\\begin\{|\\c[au]p(?![A-Za-z])|\\setminus|\\\{")
_MAX_DEPTH = 6

#: Longer answers and references are equal only as text.
MAX_CHARS = 500


def compare_numbers(answer: str, reference: str) -> bool | None:
    """Whether two numbers, with or without units, are the same; None if either is no number."""
    if same_text(answer, reference):
        return True
    if max(len(answer), len(reference)) > MAX_CHARS:
        return False
    theirs = read(reference)
    if not isinstance(theirs, Quantity) or theirs.numeral is None:
        return None
    mine = read(answer, may_be_attached=theirs.is_bare)
    if not isinstance(mine, Quantity) or mine.numeral is None:
        return None
    return equal_without_algebra(answer, reference)


def equal_without_algebra(answer: str, reference: str) -> bool:
    """Whether they are the same by structure, words, numbers and units alone."""
    return Comparison(NoAlgebra()).equal(answer, reference)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Compares answers with references."""

    algebra: Algebra

    def equal(self, answer: str, reference: str, depth: int = 0) -> bool:
        """Whether `answer` says what `reference` says."""
        if same_text(answer, reference):
            return True
        if depth > _MAX_DEPTH:
            return False
        bases = read_in_base(answer), read_in_base(reference)
        if None not in bases:  # to a parser of mathematics a base is an index, which it drops
            return bases[0] == bases[1]
        my_set, their_set = read_real_set(answer), read_real_set(reference)
        if (
            my_set is not None
            and their_set is not None
            and self._same_set(my_set, their_set, depth)
        ):
            return True
        theirs = read(reference)
        is_value = isinstance(theirs, Quantity) and theirs.is_bare and not theirs.has_variables
        mine = read(answer, may_be_attached=is_value)
        return self._same(mine, theirs, (answer, reference), depth)

    def _same(self, mine: Reading, theirs: Reading, texts: tuple[str, str], depth: int) -> bool:
        match mine, theirs:
            case Quantity(), Quantity():
                if mine.has_variables != theirs.has_variables:  # 3/2 h and 3h/2: no hours
                    return self.algebra.same(*texts)
                return same_quantity(mine, theirs, self.algebra)
            case Clock(), Clock():
                return mine == theirs
            case Words(), Words():
                return mine == theirs
            case Ratio(), Ratio():
                return self._same_ratio(mine.items, theirs.items, depth)
            case (Ratio(), Quantity()) | (Quantity(), Ratio()):
                return _ratio_is_quotient(mine, theirs)
            case Matrix(), Matrix():
                return self._same_rows(mine.rows, theirs.rows, depth)
            case Builder(), Builder():
                return self._same_builder(mine, theirs, depth)
            case Group(), Group():
                return self._same_group(mine, theirs, texts[0], depth)
            case (Matrix(), Group("tuple")) | (Group("tuple"), Matrix()):
                return self._same_vector(mine, theirs, depth)
        if _is_computed(mine, theirs) or _is_computed(theirs, mine):
            return self.algebra.same(*texts)
        return self._different_forms(mine, theirs, texts, depth)

    def _different_forms(
        self, mine: Reading, theirs: Reading, texts: tuple[str, str], depth: int
    ) -> bool:
        """Handles a side that says more than the other: `x = 5` for 5, one solution in braces."""
        if isinstance(theirs, Relation):
            return self._for_relation(mine, theirs, texts[0], depth)
        if isinstance(mine, Relation):
            return mine.signs[-1] in ("=", r"\approx", r"\in") and self._states(
                mine, texts[1], depth
            )
        if isinstance(theirs, Group) and theirs.kind == "set" and len(theirs.items) == 1:
            return not isinstance(mine, Group) and self.equal(texts[0], theirs.items[0], depth + 1)
        if isinstance(mine, Group) and mine.kind == "set" and len(mine.items) == 1:
            return not isinstance(theirs, Group) and self.equal(mine.items[0], texts[1], depth + 1)
        return False

    def _states(self, mine: Relation, reference: str, depth: int) -> bool:
        """Whether an answer `x = ... = 5` ends with, or begins with, the reference's value."""
        terms = [mine.terms[-1]]
        if is_name(mine.terms[-1]):
            terms.append(mine.terms[0])
        elif r"\approx" in mine.signs:
            terms.append(mine.terms[-2])
        return any(self.equal(term, reference, depth + 1) for term in terms)

    def _for_relation(self, mine: Reading, theirs: Relation, answer: str, depth: int) -> bool:
        if isinstance(mine, Relation):
            return self._same_relation(mine, theirs, depth)
        defined = definition(theirs)
        return (
            theirs.is_equation and defined is not None and self.equal(answer, defined[1], depth + 1)
        )

    def _same_relation(self, mine: Relation, theirs: Relation, depth: int) -> bool:
        if mine.signs == theirs.signs and len(mine.terms) == len(theirs.terms):
            pairs = list(zip(mine.terms, theirs.terms, strict=True))
            if all(self.equal(a, b, depth + 1) for a, b in pairs):
                return True
        if not (mine.is_equation and theirs.is_equation):
            return False
        names = [definition(relation) for relation in (mine, theirs)]
        if names[0] is not None and names[1] is not None and name_one_thing(names[0], names[1]):
            return self.equal(names[0][1], names[1][1], depth + 1)
        implicit = [f"({r.terms[0]})-({r.terms[-1]})" for r in (mine, theirs)]
        return self.algebra.proportional(*implicit)

    def _same_group(self, mine: Group, theirs: Group, answer: str, depth: int) -> bool:
        if (mine.kind == "tuple") != (theirs.kind == "tuple"):
            mine, theirs = _as_tuple(mine), _as_tuple(theirs)
            if (mine.kind == "tuple") != (theirs.kind == "tuple"):
                return False
        if mine.kind == "tuple":
            if len(mine.items) == 2 and mine.brackets != theirs.brackets:  # intervals
                return False
            return self._same_in_order(mine.items, theirs.items, depth)
        if len(mine.items) != len(theirs.items) and mine.kind == "list":
            mine = Group("list", split_items(answer, keep_digits_together=False))
        return _match(mine.items, theirs.items, lambda a, b: self.equal(a, b, depth + 1))

    def _same_in_order(self, mine: Sequence[str], theirs: Sequence[str], depth: int) -> bool:
        pairs = zip(mine, theirs, strict=False)
        return len(mine) == len(theirs) and all(self.equal(a, b, depth + 1) for a, b in pairs)

    def _same_rows(
        self, mine: Sequence[Sequence[str]], theirs: Sequence[Sequence[str]], depth: int
    ) -> bool:
        pairs = zip(mine, theirs, strict=False)
        return len(mine) == len(theirs) and all(self._same_in_order(a, b, depth) for a, b in pairs)

    def _same_vector(self, mine: Reading, theirs: Reading, depth: int) -> bool:
        """A row or a column equals the tuple of its numbers."""
        items = [_cells(mine), _cells(theirs)]
        return (
            items[0] is not None
            and items[1] is not None
            and self._same_in_order(items[0], items[1], depth)
        )

    def _same_builder(self, mine: Builder, theirs: Builder, depth: int) -> bool:
        """Two conditions match as text or as equations. Algebra never decides about a domain."""

        def same(a: str, b: str) -> bool:
            is_domain = r"\in" in a + b or r"\mathbb" in a + b
            return same_text(a, b) or (not is_domain and self.equal(a, b, depth + 1))

        return same_text(mine.subject, theirs.subject) and _match(
            mine.conditions, theirs.conditions, same
        )

    def _same_set(self, mine: RealSet, theirs: RealSet, depth: int) -> bool:
        if mine.variable != theirs.variable and mine.variable and theirs.variable:
            return False

        def same(a: Interval, b: Interval) -> bool:
            is_alike = (a.has_low, a.has_high) == (b.has_low, b.has_high)
            return (
                is_alike
                and self.equal(a.low, b.low, depth + 1)
                and self.equal(a.high, b.high, depth + 1)
            )

        return _match(mine.intervals, theirs.intervals, same)

    def _same_ratio(self, mine: Sequence[str], theirs: Sequence[str], depth: int) -> bool:
        numbers = [[parse_number(item) for item in items] for items in (mine, theirs)]
        if len(mine) != len(theirs) or None in numbers[0] or None in numbers[1]:
            return self._same_in_order(mine, theirs, depth)
        a, b = ([number or Fraction(0) for number in numbers[i]] for i in (0, 1))
        return all(x * b[0] == y * a[0] for x, y in zip(a, b, strict=True)) and any(a) and any(b)


def _as_tuple(group: Group) -> Group:
    """`x = 2, y = 3` becomes (2, 3)."""
    relations = [read(item) for item in group.items]
    if group.kind != "list" or not all(
        isinstance(r, Relation) and r.is_equation for r in relations
    ):
        return group
    values = dict(sorted((r.terms[0], r.terms[-1]) for r in relations if isinstance(r, Relation)))
    is_named = len(values) == len(group.items) and all(is_name(name) for name in values)
    return Group("tuple", tuple(values.values()), "()") if is_named else group


def _cells(reading: Reading) -> tuple[str, ...] | None:
    if isinstance(reading, Group):
        return reading.items
    if isinstance(reading, Matrix) and (
        len(reading.rows) == 1 or all(len(row) == 1 for row in reading.rows)
    ):
        return tuple(cell for row in reading.rows for cell in row)
    return None


def _ratio_is_quotient(mine: Reading, theirs: Reading) -> bool:
    ratio, quantity = (mine, theirs) if isinstance(mine, Ratio) else (theirs, mine)
    assert isinstance(ratio, Ratio)
    assert isinstance(quantity, Quantity)
    if len(ratio.items) != 2 or quantity.numeral is None or not quantity.is_bare:
        return False
    first, second = (parse_number(item) for item in ratio.items)
    if first is None or not second:
        return False
    return first / second == quantity.numeral.value


def _match(mine: Sequence[_T], theirs: Sequence[_T], same: Callable[[_T, _T], bool]) -> bool:
    """Whether each of `mine` has a partner of its own among `theirs`, and none is left over."""
    if len(mine) != len(theirs):
        return False
    left = list(theirs)
    for item in mine:
        partner = next((i for i, other in enumerate(left) if same(item, other)), None)
        if partner is None:
            return False
        del left[partner]
    return True


def _is_computed(mine: Reading, theirs: Reading) -> bool:
    """Whether `mine` is a computation of what `theirs` writes out.

    Examples: 3 times a matrix, a union of sets.
    """
    return (
        isinstance(mine, Quantity)
        and isinstance(theirs, Matrix | Group)
        and _SET_OR_MATRIX.search(mine.text) is not None
    )
