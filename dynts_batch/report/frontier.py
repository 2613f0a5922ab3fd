"""Accuracy against memory: policies by budgets on the same questions, against the full cache and
the best.

Computes and renders from a frontier's rows. Knows nothing about how they were run.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import pyarrow as pa
from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from dynts_batch.report.charts.line_chart import Series, line_chart
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
        return next((point for point in self.points if point.policy == FULL), None)

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


def table(frontier: Frontier) -> Group:
    """Every point with its paired 95% intervals in percentage points, and a conclusion per policy.

    For a terminal of 80 columns.
    """
    return Group(_title(frontier), "", _points_table(frontier), "", _policies_table(frontier))


def picture(frontier: Frontier) -> str:
    """SVG: accuracy against KV memory, one line per policy. Without the full cache, memory is in
    bytes."""
    series = []
    share = 100 / frontier.full.stored_bytes if frontier.full is not None else 1.0
    for policy in frontier.policies:
        points = [point for b in frontier.budgets if (point := frontier.at(policy, b)) is not None]
        places = tuple((point.stored_bytes * share, point.accuracy) for point in points)
        series.append(Series(policy, places, tuple(point.interval for point in points)))
    if (full := frontier.full) is not None:
        series.append(Series(FULL, ((100.0, full.accuracy),), (full.interval,)))
    return line_chart(
        series,
        title="Right answers by KV memory",
        x_label="KV memory of a sequence (mean of the peaks), "
        + ("bytes" if frontier.full is None else "% of the full cache"),
        y_label="right answers, with 95% intervals over questions",
        is_log_x=True,
    )


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


def _title(frontier: Frontier) -> str:
    full = frontier.full
    if full is None:
        return "no run with policy full yet"
    low, high = full.interval
    return (
        f"full cache: {full.accuracy:.1%} right [{100 * low:.1f} {100 * high:.1f}],"
        f" {full.stored_tokens:,.0f} stored tokens, {full.generated_tokens:,.0f} generated,"
        f" {len(full.right):,} questions"
    )


def _points_table(frontier: Frontier) -> Table:
    """Points by budget, the best first.

    Right answers are in percent, KV memory in percent of the full cache's, and the cost of a right
    answer is over the full cache's. The 95% intervals of the paired differences are in percentage
    points. "minus best other" makes a policy first, tied with the first, or behind.
    """
    full = frontier.full
    shown = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    shown.add_column("budget, policy", overflow="fold", vertical="bottom")
    for name in ("right", "KV %", "tokens", "cost", "minus full", "minus best\nother", ""):
        shown.add_column(name, justify="left" if not name else "right", vertical="bottom")
    for budget in frontier.budgets:
        shown.add_section()
        shown.add_row(_heading(frontier, budget), style="bold")
        points = [point for point in frontier.points if point.budget == budget]
        for point in sorted(points, key=lambda p: -p.accuracy):
            shown.add_row(
                Text(f"  {point.policy}"),
                f"{100 * point.accuracy:.1f}",
                "" if full is None else f"{100 * point.stored_bytes / full.stored_bytes:.1f}",
                f"{point.generated_tokens:,.0f}",
                _cost(point, full),
                _difference(point, full),
                _difference(point, frontier.rival(point)),
                frontier.standing(point),
            )
    return shown


def _policies_table(frontier: Frontier) -> Table:
    shown = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    shown.add_column("policy", overflow="fold")
    shown.add_column("smallest budget\nwithin 2 points of full", justify="right")
    shown.add_column("within 2\npoints at")
    shown.add_column("first or\ntied at")
    for policy in frontier.policies:
        within = frontier.budgets_within_tolerance(policy)
        shown.add_row(
            Text(policy), str(within[0]) if within else "none", _list(within),
            _list(frontier.budgets_in_front(policy)),
        )  # fmt: skip
    return shown


def _list(budgets: list[int]) -> str:
    return ", ".join(map(str, budgets)) or "none"


def _heading(frontier: Frontier, budget: int) -> str:
    if frontier.full is None:
        return str(budget)
    return f"{budget} ({budget / frontier.full.stored_tokens:.0%} of full)"


def _cost(point: Point, full: Point | None) -> str:
    if full is None or point.usd_per_right is None or not full.usd_per_right:
        return ""
    return f"{point.usd_per_right / full.usd_per_right:.2f}"


def _difference(point: Point, other: Point | None) -> str:
    """The interval, in percentage points, or the bare difference if there is none."""
    if other is None:
        return ""
    found = point.minus(other)
    if found.low is None or found.high is None:
        return f"{100 * found.mean:+.1f}"
    return f"{100 * found.low:+.1f}..{100 * found.high:+.1f}"
