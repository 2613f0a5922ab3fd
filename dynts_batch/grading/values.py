"""When two values are the same: their numbers, units, nouns and percentages."""

from __future__ import annotations

import re
from fractions import Fraction

from dynts_batch.grading.algebra import Algebra
from dynts_batch.grading.notation.numeral import agree
from dynts_batch.grading.notation.quantity import Quantity

_DEGREE = (("degree", 1),)


def same_quantity(mine: Quantity, theirs: Quantity, algebra: Algebra) -> bool:
    """Whether a value is the reference's, in its unit or in one that converts to it."""
    if mine.is_percent or theirs.is_percent:
        return _same_share(mine, theirs, algebra)
    if not _nouns_fit(mine, theirs):
        return False
    if mine.unit is None or theirs.unit is None:
        return _same_value(mine, theirs, algebra) or _same_angle(mine, theirs, algebra)
    if mine.unit.dimensions != theirs.unit.dimensions:
        return False
    return _same_value(mine, theirs, algebra, mine.unit.factor / theirs.unit.factor)


def _same_value(
    mine: Quantity, theirs: Quantity, algebra: Algebra, factor: Fraction = Fraction(1)
) -> bool:
    if mine.numeral is not None and theirs.numeral is not None:
        return agree(mine.numeral.scaled(factor), theirs.numeral)
    if factor == 1:
        return algebra.same(mine.text, theirs.text)
    quotient = rf"\frac{{{factor.numerator}}}{{{factor.denominator}}}"
    return algebra.same(rf"({mine.text})\cdot{quotient}", theirs.text)


def _same_angle(mine: Quantity, theirs: Quantity, algebra: Algebra) -> bool:
    """Whether degrees on one side equal radians on the other. Only a pi tells radians."""
    units = [
        quantity.unit.dimensions if quantity.unit is not None else () for quantity in (mine, theirs)
    ]
    other = theirs if units[0] == _DEGREE else mine
    if _DEGREE not in units or r"\pi" not in other.text:
        return False
    texts = [
        rf"({quantity.text})\cdot\frac{{\pi}}{{180}}" if unit == _DEGREE else quantity.text
        for quantity, unit in zip((mine, theirs), units, strict=True)
    ]
    return algebra.same(texts[0], texts[1])


def _same_share(mine: Quantity, theirs: Quantity, algebra: Algebra) -> bool:
    """25% is 25, as an answer to "how many percent?", and 1/4. Half a percent is not 0.5."""
    if mine.is_percent and theirs.is_percent:
        return _same_value(mine, theirs, algebra)
    percent, other = (mine, theirs) if mine.is_percent else (theirs, mine)
    is_above_one = percent.numeral is None or percent.numeral.value >= 1
    if is_above_one and _same_value(mine, theirs, algebra):
        return True
    factor = Fraction(1, 100) if mine.is_percent else Fraction(100)
    return other.is_bare and _same_value(mine, theirs, algebra, factor)


def _nouns_fit(mine: Quantity, theirs: Quantity) -> bool:
    """Whether both may count the same thing: one side leaves it out, or they share a word."""
    if not (mine.noun or mine.unit) or not (theirs.noun or theirs.unit):
        return True
    if mine.noun and theirs.noun:
        stems = [
            {word.removesuffix("s") for word in re.split("[ ~-]", q.noun.lower())}
            for q in (mine, theirs)
        ]
        return bool(stems[0] & stems[1])
    return not (mine.noun or theirs.noun)
