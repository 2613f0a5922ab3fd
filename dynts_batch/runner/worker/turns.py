"""Whose turn it is among the units of a shard:
all at once, or, with sampling.stop_when, when their question needs them.

grading/stopping.py has the rule. It is told of the samples in the order of their indices, in
whatever order they end, so the same ones are run each time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Set
from typing import NamedTuple

from dynts_batch.grading.stopping import Sample, Stopping
from dynts_batch.runner.messages import Item


class Due(NamedTuple):
    """Units whose turn has come; each is due once."""

    to_run: list[Item]
    to_skip: list[Item]
    """Nobody needs them."""


class Turns:
    """Of one lease of a shard; its units wait until they are due, or have a row without that."""

    def __init__(
        self, stopping: Stopping | None, items: Iterable[Item], held_back: Set[int]
    ) -> None:
        """`items` are all of the shard; `held_back` units are not run,
        and so hold back the later ones of their question."""
        self._held_back = held_back
        self._questions: dict[int, _Question] = {}
        for item in items:
            question = self._questions.setdefault(item.row.index, _Question(stopping))
            question.waiting[item.sample_index] = item

    def record(self, item: Item, sample: Sample | None) -> None:
        """`item` has a row; `sample` is what it says, None where it failed, which says nothing."""
        self._questions[item.row.index].record(item.sample_index, sample)

    def due(self, row: int | None = None) -> Due:
        """What is due of the question of source row `row`; None: of all."""
        questions = self._questions.values() if row is None else [self._questions[row]]
        due = Due([], [])
        for question in questions:
            question.take(due, self._held_back)
        return due


class _Question:
    """The samples of one question, by their indices."""

    def __init__(self, stopping: Stopping | None) -> None:
        self.waiting: dict[int, Item] = {}
        self._stopping = stopping
        self._done: dict[int, Sample | None] = {}
        self._first: list[Sample] = []
        """Of the first samples, those that did not fail, as far as all before them are done."""
        self._num_first = 0
        """How many those are, failed ones included."""
        self._is_decided = False
        self._num_needed = math.inf if stopping is None else stopping.num_certain

    def record(self, sample_index: int, sample: Sample | None) -> None:
        self.waiting.pop(sample_index, None)
        self._done[sample_index] = sample
        while self._num_first in self._done and not self._is_decided:
            self._look_at(self._done[self._num_first])

    def take(self, due: Due, held_back: Set[int]) -> None:
        """Move what is due from those that wait to `due`."""
        for index, item in list(self.waiting.items()):
            if index >= self._num_needed:
                if not self._is_decided:
                    continue
                due.to_skip.append(item)
            elif item.unit not in held_back:
                due.to_run.append(item)
            else:
                continue
            del self.waiting[index]

    def _look_at(self, sample: Sample | None) -> None:
        self._num_first += 1
        if sample is not None:
            self._first.append(sample)
        if self._stopping is not None:
            num_missing = self._stopping.num_missing(self._first)
            self._is_decided = num_missing == 0
            self._num_needed = self._stopping.num_needed(self._num_first, num_missing)
