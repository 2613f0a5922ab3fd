"""The figures of one run that need all its rows at once: by question, length or rank. Sums are in
totals.py."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Literal

import numpy as np

from dynts_batch.grading.equality import canonical_answer
from dynts_batch.grading.pass_at_k import Vote, majority_at_k
from dynts_batch.grading.stopping import Stopping
from dynts_batch.report.run_rows import RunRows
from dynts_batch.report.samples.at_k import AtK, of_all, of_stopped
from dynts_batch.report.samples.savings import Savings
from dynts_batch.report.statistics import Estimate, estimate
from dynts_batch.report.totals import Totals

Right = Literal["right answer", "right vote", "solved question"]
"""What a price is of: a right sample, a question whose vote is right, one with a right sample."""


class Measures:
    """Lazy, because the terminal needs less than the page. An unknown figure is None."""

    def __init__(self, run: RunRows, label: str) -> None:
        self.run, self.label = run, label
        self._is_run = run.is_run()
        correct = run.numbers("correct")
        self._is_judged = ~np.isnan(correct)
        self._is_correct = correct == 1.0
        self._stopping = stopping = Stopping.from_config(run.config.sampling)
        self._is_certain = np.full(run.num_rows, fill_value=True)
        """Which rows are of samples that every question has, whatever they say."""
        if stopping is not None:
            self._is_certain = run.numbers("sample_index") < stopping.num_certain

    @cached_property
    def totals(self) -> Totals:
        """The run's sums."""
        telemetry = [] if self.run.telemetry is None else [self.run.telemetry]
        return Totals.of(self.run.config, self.run.table.to_batches(), telemetry)

    @cached_property
    def questions(self) -> dict[str, float]:
        """Share right of the judged samples of each question that has any, by request_id. With
        sampling.stop_when, of the samples that every question has: the others depend on these."""
        codes, names = self._questions
        is_certain = self._is_certain
        judged = np.bincount(codes[self._is_judged & is_certain], minlength=len(names))
        right = np.bincount(codes[self._is_correct & is_certain], minlength=len(names))
        return {
            name: float(r / j) for name, r, j in zip(names, right, judged, strict=True) if j > 0
        }

    @cached_property
    def accuracy(self) -> Estimate | None:
        """pass@1: the share right of a question's samples, mean over questions. Error rows do not
        count."""
        return estimate(np.array(list(self.questions.values())))

    @property
    def right_share(self) -> float | None:
        return None if self.accuracy is None else self.accuracy.mean

    @property
    def accuracy_with_errors(self) -> float | None:
        """Share right of the rows that `questions` counts, and of error rows, which count
        as wrong."""
        if not self._is_judged.any():
            return None
        is_error = self.run.is_equal("finish_reason", "error")
        is_counted = (self._is_judged | is_error) & self._is_certain
        return float(np.mean(self._is_correct[is_counted]))

    @cached_property
    def at_k(self) -> list[AtK]:
        """For k = 1, 2, 4, ... and all samples. Empty if nothing is judged."""
        if self._stopping is None:
            return of_all(self._votes)
        return of_stopped(self._stopping, self._votes, self._votes_of(self._is_certain))

    def num_right(self, what: Right) -> float | None:
        """How many are right. None if no row was judged. A tie is half a right vote."""
        if what == "right answer" or self.totals.num_correct is None:
            return self.totals.num_correct
        if what == "right vote":
            return sum(majority_at_k(votes, len(votes)) for votes in self._votes)
        return sum(any(correct for _, correct in votes) for votes in self._votes)

    def usd_per(self, what: Right) -> float | None:
        """Dollars of all rows per right one. None also if there is none."""
        usd, num = self.totals.dollars.total, self.num_right(what)
        return usd / num if usd is not None and num else None

    @cached_property
    def savings(self) -> Savings | None:
        """None for a run that ran all samples."""
        if self._stopping is None:
            return None
        return Savings.of(self.run, self._questions[0], self._stopping.num_certain)

    @property
    def run_share(self) -> float | None:
        """Of all samples, those that were run; None for a run that ran all."""
        return None if self.savings is None else self.savings.run_share

    def of_answers(self, column: str) -> np.ndarray:
        """A numeric column of the rows that were run [num_answers]."""
        return self.run.numbers(column)[self._is_run]

    def lengths(self) -> dict[str, np.ndarray]:
        """Generated tokens of right, wrong and unjudged answers."""
        tokens = self.run.numbers("completion_tokens")
        judged = self._is_run & self._is_judged
        return {
            "right": tokens[judged & self._is_correct],
            "wrong": tokens[judged & ~self._is_correct],
            "not judged": tokens[self._is_run & ~self._is_judged],
        }

    def top_rows(self, column: str, count: int) -> list[int]:
        """Positions of the answers with the largest known values of `column`, the largest first."""
        values = np.where(
            self._is_run, np.nan_to_num(self.run.numbers(column), nan=-np.inf), -np.inf
        )
        best = np.argsort(-values, kind="stable")[:count]
        return [int(row) for row in best if np.isfinite(values[row])]

    @cached_property
    def _questions(self) -> tuple[np.ndarray, list[str]]:
        """The question of each row [rows], and the questions' ids."""
        encoded = self.run.table["request_id"].combine_chunks().dictionary_encode()
        return encoded.indices.to_numpy(), encoded.dictionary.to_pylist()

    @cached_property
    def _votes(self) -> list[list[Vote]]:
        """The judged samples of every question that has any."""
        return self._votes_of(self._is_judged)

    def _votes_of(self, wanted: np.ndarray) -> list[list[Vote]]:
        codes, names = self._questions
        answers = self.run.table["extracted_answer"].to_pylist()
        keys = {answer: canonical_answer(answer) for answer in set(answers) if answer is not None}
        votes: list[list[Vote]] = [[] for _ in names]
        for row in np.flatnonzero(wanted & self._is_judged):
            answer = answers[row]
            key = None if answer is None else keys[answer]
            votes[codes[row]].append((key, bool(self._is_correct[row])))
        return [its_votes for its_votes in votes if its_votes]


def right_of(runs: Sequence[Measures]) -> Right:
    """What the prices are of. If samples were left out, it is questions: a sample more or less is
    no gain."""
    found = {run.run.config.sampling.stop_when for run in runs}
    if "agreed" in found:
        return "right vote"
    return "solved question" if "right" in found else "right answer"


def measure(runs: list[RunRows]) -> list[Measures]:
    """The figures of each run. A label is the engine or the policy, plus the folder if that is
    ambiguous."""
    names = [_name(run) for run in runs]
    folders = [run.run_dir.path.rstrip("/").rpartition("/")[2] for run in runs]
    return [
        Measures(run, name if names.count(name) == 1 else f"{name} ({folder})")
        for run, name, folder in zip(runs, names, folders, strict=True)
    ]


def _name(run: RunRows) -> str:
    policy = run.config.policy
    if run.config.engine.kind != "arena":
        return run.config.engine.kind
    is_bounded = policy.budget is not None and policy.name != "full"
    name = f"{policy.name} {policy.budget}" if is_bounded else policy.name
    return f"{name}+quantize={policy.quantize}" if policy.quantize else name
