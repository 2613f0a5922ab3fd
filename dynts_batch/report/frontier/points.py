"""Accuracy against memory: policies by budgets on the same questions, against the full cache and
the best.

Computes from a frontier's rows. Knows nothing about how they were run.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import pyarrow as pa

from dynts_batch.report.statistics import Estimate, compare, estimate

#: One row per sequence. `budget` is null for policy full.
SCHEMA = pa.schema(
    [
        pa.field("policy", pa.string(), nullable=False),
        pa.field("budget", pa.int64()),
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("request_id", pa.string(), nullable=False),
        pa.field("sample_index", pa.int64(), nullable=False),
        pa.field("correct", pa.bool_(), nullable=False),
        pa.field("finish_reason", pa.string(), nullable=False),
        pa.field("prompt_tokens", pa.int64()),
        pa.field("completion_tokens", pa.int64()),
        pa.field("evicted_tokens", pa.int64()),
        pa.field("num_evictions", pa.int64()),
        pa.field("peak_cache_len", pa.int64()),
        pa.field("peak_kv_bytes", pa.int64()),
        pa.field("cost_usd", pa.float64()),
    ]
)
FULL = "full"
#: A budget is as good as the full cache if it loses at most this much.
TOLERANCE = 0.02
#: Slack for sums of shares: a loss of exactly 2 percentage points is within the tolerance.
ROUNDING = 1e-9

Standing = Literal["first", "tied", "behind"]


@dataclass(frozen=True)
class Point:
    """One policy at one budget, all seeds together. A question's value is the mean over its
    rows."""

    policy: str
    budget: int | None
    right: dict[str, float]
    stored_tokens: float
    """The most tokens stored at once, mean over the rows. `stored_bytes` likewise."""
    stored_bytes: float
    generated_tokens: float
    usd_per_right: float | None
    """Cost of all rows per right answer. None if nothing was right, or a row has no cost."""

    @property
    def accuracy(self) -> float:
        return float(np.mean(list(self.right.values())))

    @property
    def interval(self) -> tuple[float, float]:
        found = estimate(np.array(list(self.right.values())))
        assert found is not None, "a point has rows"
        if found.low is None or found.high is None:
            return found.mean, found.mean
        return found.low, found.high

    def minus(self, other: Point) -> Estimate:
        """The paired difference in accuracy, over the questions of both.

        Raises: ValueError if they share none.
        """
        shared = sorted(self.right.keys() & other.right.keys())
        a, b = (np.array([point.right[name] for name in shared]) for point in (other, self))
        comparison = compare(a, b)
        if comparison is None:
            raise ValueError(f"{self.policy} and {other.policy} share no question")
        return comparison.difference


@dataclass(frozen=True)
class Frontier:
    """All points, policies and budgets in the order of the rows."""

    points: tuple[Point, ...]

    @classmethod
    def of(cls, rows: pa.Table) -> Frontier:
        """From rows of `SCHEMA`. A failed row counts as wrong, and stores nothing."""
        groups: dict[tuple[str, int | None], list[dict]] = {}
        for row in rows.to_pylist():
            groups.setdefault((row["policy"], row["budget"]), []).append(row)
        return cls(tuple(_point(*key, members) for key, members in groups.items()))

    @cached_property
    def full(self) -> Point | None:
        """None also if each of its rows failed: nothing can be compared with that."""
        full = (point for point in self.points if point.policy == FULL and point.stored_bytes > 0)
        return next(full, None)

    @property
    def budgets(self) -> list[int]:
        return sorted({point.budget for point in self.points if point.budget is not None})

    @property
    def policies(self) -> list[str]:
        """Without full."""
        return list(dict.fromkeys(point.policy for point in self.points if point.policy != FULL))

    def at(self, policy: str, budget: int) -> Point | None:
        found = [p for p in self.points if (p.policy, p.budget) == (policy, budget)]
        return found[0] if found else None

    def rival(self, point: Point) -> Point | None:
        """The best other policy at the budget of `point`, or None."""
        others = [p for p in self.points if p.budget == point.budget and p.policy != point.policy]
        return max(others, key=lambda other: other.accuracy, default=None)

    def standing(self, point: Point) -> Standing:
        """The place of a policy among all at its budget.

        "tied": the paired interval to the best of the others reaches 0.
        """
        rival = self.rival(point)
        if rival is None or point.accuracy > rival.accuracy:
            return "first"
        difference = point.minus(rival)
        return "tied" if difference.high is None or difference.high >= 0 else "behind"

    def budgets_within_tolerance(self, policy: str) -> list[int]:
        """Budgets at which the policy loses at most `TOLERANCE` against the full cache."""
        points = [point for b in self.budgets if (point := self.at(policy, b)) is not None]
        if self.full is None:
            return []
        return [
            point.budget
            for point in points
            if point.budget is not None and point.minus(self.full).mean >= -TOLERANCE - ROUNDING
        ]

    def budgets_in_front(self, policy: str) -> list[int]:
        """Budgets at which the policy is first, or tied with the first."""
        points = [point for b in self.budgets if (point := self.at(policy, b)) is not None]
        return [
            point.budget
            for point in points
            if point.budget is not None and self.standing(point) != "behind"
        ]


def _point(policy: str, budget: int | None, rows: list[dict]) -> Point:
    by_question: dict[str, list[bool]] = {}
    for row in rows:
        by_question.setdefault(row["request_id"], []).append(row["correct"])
    run = [row for row in rows if row["finish_reason"] != "error"]
    costs, num_right = [row["cost_usd"] for row in rows], sum(row["correct"] for row in rows)
    is_known = num_right > 0 and None not in costs
    return Point(
        policy=policy,
        budget=budget,
        right={name: float(np.mean(found)) for name, found in by_question.items()},
        stored_tokens=_mean(run, "peak_cache_len"),
        stored_bytes=_mean(run, "peak_kv_bytes"),
        generated_tokens=_mean(run, "completion_tokens"),
        usd_per_right=sum(costs) / num_right if is_known else None,
    )


def _mean(rows: list[dict], name: str) -> float:
    return float(np.mean([row[name] for row in rows] or [0]))
