"""The figures of one run that need all its rows at once: by question, by length, by rank. Its sums are in totals.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from dynts_batch.grading.equality import canonical_answer
from dynts_batch.grading.pass_at_k import Vote, majority_at_k, pass_at_k
from dynts_batch.report.run_rows import RunRows
from dynts_batch.report.statistics import Estimate, estimate
from dynts_batch.report.totals import Totals


@dataclass(frozen=True)
class AtK:
    """pass@k and majority@k, means over the questions with at least k judged samples."""

    k: int
    pass_at_k: float
    majority_at_k: float
    num_questions: int


class Measures:
    """Lazy, because the terminal needs less than the page. A figure that nothing is known of is None."""

    def __init__(self, run: RunRows, label: str) -> None:
        self.run, self.label = run, label
        self._is_run = run.is_run()
        correct = run.numbers("correct")
        self._is_judged = ~np.isnan(correct)
        self._is_correct = correct == 1.0

    @cached_property
    def totals(self) -> Totals:
        """What the run adds up to."""
        telemetry = [] if self.run.telemetry is None else [self.run.telemetry]
        return Totals.of(self.run.config, self.run.table.to_batches(), telemetry)

    @cached_property
    def questions(self) -> dict[str, float]:
        """Share right of the judged samples of each question that has any, by request_id."""
        codes, names = self._questions
        judged = np.bincount(codes[self._is_judged], minlength=len(names))
        right = np.bincount(codes[self._is_correct], minlength=len(names))
        return {
            name: float(r / j) for name, r, j in zip(names, right, judged, strict=True) if j > 0
        }

    @cached_property
    def accuracy(self) -> Estimate | None:
        """pass@1: the share right of a question's samples, mean over questions. Error rows are no samples."""
        return estimate(np.array(list(self.questions.values())))

    @property
    def right_share(self) -> float | None:
        return None if self.accuracy is None else self.accuracy.mean

    @property
    def accuracy_with_errors(self) -> float | None:
        """Share right of all rows, error rows counted as wrong."""
        totals = self.totals
        if totals.num_correct is None:
            return None
        return totals.num_correct / (totals.num_judged + totals.num_errors)

    @cached_property
    def at_k(self) -> list[AtK]:
        """For k = 1, 2, 4, ... and all samples; empty where nothing is judged."""
        votes = self._votes()
        most = max(map(len, votes), default=0)
        ks = sorted({2**i for i in range(most.bit_length())} | {most}) if most else []
        return [_at_k([v for v in votes if len(v) >= k], k) for k in ks]

    def of_answers(self, column: str) -> np.ndarray:
        """A numeric column of the rows that were run [num_answers]."""
        return self.run.numbers(column)[self._is_run]

    def lengths(self) -> dict[str, np.ndarray]:
        """Generated tokens of the answers that are right, wrong, and not judged."""
        tokens = self.run.numbers("completion_tokens")
        judged = self._is_run & self._is_judged
        return {
            "right": tokens[judged & self._is_correct],
            "wrong": tokens[judged & ~self._is_correct],
            "not judged": tokens[self._is_run & ~self._is_judged],
        }

    def top_rows(self, column: str, count: int) -> list[int]:
        """Positions of the answers with the largest known values of `column`, largest first."""
        values = np.where(
            self._is_run, np.nan_to_num(self.run.numbers(column), nan=-np.inf), -np.inf
        )
        best = np.argsort(-values, kind="stable")[:count]
        return [int(row) for row in best if np.isfinite(values[row])]

    @cached_property
    def _questions(self) -> tuple[np.ndarray, list[str]]:
        """Which question each row belongs to [rows], and the questions' ids."""
        encoded = self.run.table["request_id"].combine_chunks().dictionary_encode()
        return encoded.indices.to_numpy(), encoded.dictionary.to_pylist()

    def _votes(self) -> list[list[Vote]]:
        """The judged samples of every question that has any."""
        codes, names = self._questions
        answers = self.run.table["extracted_answer"].to_pylist()
        keys = {answer: canonical_answer(answer) for answer in set(answers) if answer is not None}
        votes: list[list[Vote]] = [[] for _ in names]
        for row in np.flatnonzero(self._is_judged):
            answer = answers[row]
            key = None if answer is None else keys[answer]
            votes[codes[row]].append((key, bool(self._is_correct[row])))
        return [its_votes for its_votes in votes if its_votes]


def measure(runs: list[RunRows]) -> list[Measures]:
    """The figures of each run, labelled by engine or policy, and by folder where that is not enough."""
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


def _at_k(votes: list[list[Vote]], k: int) -> AtK:
    def mean(of: Callable[[list[Vote]], float]) -> float:
        return sum(map(of, votes)) / len(votes)

    return AtK(
        k,
        mean(lambda v: pass_at_k(len(v), sum(correct for _, correct in v), k)),
        mean(lambda v: majority_at_k(v, k)),
        len(votes),
    )
