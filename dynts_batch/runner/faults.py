"""Tells an error of the code, which every worker has, from one of a request, which costs a row.

    worker 1 died of it with requests  a b c d
    worker 2                           e f g h
    worker 3                               c d      no request was there each time: it is the code

Pure bookkeeping over the errors that workers raised at work; a process that was killed raises none.
"""

from __future__ import annotations

import re
from collections.abc import Set

_MIN_DEATHS = 3
_NUMBERS = re.compile(r"0x[0-9a-f]+|\d+")  # shapes, addresses: the same error has others each time


class Faults:
    """The latest deaths of workers by the same error, without another one between them."""

    def __init__(self) -> None:
        self._error: str | None = None
        self._common: Set[int] = frozenset()
        self.num_deaths = 0

    def add(self, error: str, units: Set[int]) -> None:
        """A worker raised `error` with `units` in flight."""
        error = _NUMBERS.sub("#", error)
        if error != self._error:
            self._error, self._common, self.num_deaths = error, units, 0
        self._common = self._common & units
        self.num_deaths += 1

    @property
    def is_in_the_code(self) -> bool:
        """Whether no single request explains them. Only where no row was done either."""
        return self.num_deaths >= _MIN_DEATHS and not self._common
