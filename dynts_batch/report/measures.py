"""The figures of one run, each computed once for the terminal and the page alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from dynts_batch.grading.equality import canonical_answer
from dynts_batch.grading.pass_at_k import Vote, majority_at_k, pass_at_k
from dynts_batch.report.crossover import Crossover, find_crossover
from dynts_batch.report.device_time import DeviceTime, measure_device_time
from dynts_batch.report.price import Price
from dynts_batch.report.run_rows import RunRows
from dynts_batch.report.statistics import Estimate, estimate


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

    @property
    def num_errors(self) -> int:
        return int((~self._is_run).sum())

    @property
    def num_answers(self) -> int:
        """Rows that were run: error rows have no answer and count in no mean."""
        return int(self._is_run.sum())

    @property
    def num_judged(self) -> int:
        return int(self._is_judged.sum())

    @property
    def num_correct(self) -> int | None:
        return int(self._is_correct.sum()) if self.num_judged else None

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
        if self.num_correct is None:
            return None
        return self.num_correct / (self.num_judged + self.num_errors)

    @cached_property
    def at_k(self) -> list[AtK]:
        """For k = 1, 2, 4, ... and all samples; empty where nothing is judged."""
        votes = self._votes()
        most = max(map(len, votes), default=0)
        ks = sorted({2**i for i in range(most.bit_length())} | {most}) if most else []
        return [_at_k([v for v in votes if len(v) >= k], k) for k in ks]

    @property
    def truncated_share(self) -> float | None:
        """Answers that ended at the token limit."""
        return self._share(self.run.is_equal("finish_reason", "length"))

    @cached_property
    def completion_tokens(self) -> int:
        return int(np.nansum(self.of_answers("completion_tokens")))

    @property
    def tokens_per_problem(self) -> float | None:
        """Generated tokens, mean over answers."""
        return self.completion_tokens / self.num_answers if self.num_answers else None

    @cached_property
    def dollars(self) -> Price:
        return self._price("cost_usd")

    @cached_property
    def joules(self) -> Price:
        return self._price("energy_j")

    @cached_property
    def device_s(self) -> float:
        """Device seconds of the rows."""
        return float(np.nansum(self.of_answers("device_s")))

    @cached_property
    def device(self) -> DeviceTime | None:
        return measure_device_time(self.run.telemetry)

    @property
    def tokens_per_s(self) -> float | None:
        """Generated tokens of finished rows, over the time in which at least one worker worked."""
        if self.device is None or self.device.wall_s <= 0:
            return None
        return self.completion_tokens / self.device.wall_s

    @property
    def tokens_per_device_s(self) -> float | None:
        """Generated tokens per second of a device that works."""
        return self.completion_tokens / self.device_s if self.device_s > 0 else None

    @property
    def held_usd(self) -> float | None:
        """What the devices cost from the first sample to the last, idle or not; None without a price."""
        price = self.run.config.cost.usd_per_gpu_hour
        return None if price is None or self.device is None else self.device.held_s / 3600 * price

    @property
    def mean_peak_bytes(self) -> float | None:
        """Most KV bytes that a sequence held at once, mean over answers."""
        return _mean(self.of_answers("peak_kv_bytes"))

    @property
    def mean_full_bytes(self) -> float | None:
        """What the full cache would have held at the end of a sequence, mean over answers."""
        return _mean(self.of_answers("full_kv_bytes"))

    @property
    def stored_share(self) -> float | None:
        if not self.mean_full_bytes or self.mean_peak_bytes is None:
            return None
        return self.mean_peak_bytes / self.mean_full_bytes

    @cached_property
    def crossover(self) -> Crossover | None:
        return find_crossover(self.run, self.device)

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

    def _price(self, column: str) -> Price:
        return Price.of(
            self.of_answers(column),
            num_correct=self.num_correct,
            completion_tokens=self.completion_tokens,
        )

    def _share(self, rows: np.ndarray) -> float | None:
        return float(rows.sum() / self.num_answers) if self.num_answers else None


def measure(runs: list[RunRows]) -> list[Measures]:
    """The figures of each run, labelled by policy and budget, and by folder where that is not enough."""
    names = [_name(run) for run in runs]
    folders = [run.run_dir.path.rstrip("/").rpartition("/")[2] for run in runs]
    return [
        Measures(run, name if names.count(name) == 1 else f"{name} ({folder})")
        for run, name, folder in zip(runs, names, folders, strict=True)
    ]


def _name(run: RunRows) -> str:
    policy = run.config.policy
    is_bounded = policy.budget is not None and policy.name != "full"
    return f"{policy.name} {policy.budget}" if is_bounded else policy.name


def _at_k(votes: list[list[Vote]], k: int) -> AtK:
    def mean(of: Callable[[list[Vote]], float]) -> float:
        return sum(map(of, votes)) / len(votes)

    return AtK(
        k,
        mean(lambda v: pass_at_k(len(v), sum(correct for _, correct in v), k)),
        mean(lambda v: majority_at_k(v, k)),
        len(votes),
    )


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) and not np.isnan(values).any() else None
