"""What a comparison asks about expressions, and the algebra that never finds an equality."""

from __future__ import annotations

from typing import Protocol


class Algebra(Protocol):
    """What a comparison asks about two expressions, in typeset LaTeX."""

    def same(self, answer: str, reference: str) -> bool:
        """Whether their values are equal wherever both are defined."""

    def proportional(self, answer: str, reference: str) -> bool:
        """Whether one is a constant multiple of the other.

        `answer` = 0 and `reference` = 0 are then the same equation.
        """


class NoAlgebra:
    """For comparisons that leave nothing to algebra."""

    def same(self, answer: str, reference: str) -> bool:
        return False

    def proportional(self, answer: str, reference: str) -> bool:
        return False
