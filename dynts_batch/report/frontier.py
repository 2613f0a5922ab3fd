"""Accuracy against memory: policies by budgets on the same questions, each against the full cache and the best.

Arithmetic and rendering of a frontier's rows. Knows nothing about how they were run.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
from rich.table import Table

from dynts_batch.report.line_chart import Series, line_chart
from dynts_batch.report.statistics import Estimate, compare, estimate

#: One row a sequence; `budget` is null for policy full.
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
    ]
)
FULL = "full"
#: A budget is as good as the full cache if it loses at most this much.
TOLERANCE = 0.02


@dataclass(frozen=True)
class Cell:
    """One policy at one budget, all seeds together; by question, the mean over its rows."""

    policy: str
    budget: int | None
    right: dict[str, float]
    stored_tokens: float
    """Mean over the rows of the most that was stored at once."""
    generated_tokens: float

    @property
    def accuracy(self) -> float:
        return float(np.mean(list(self.right.values())))

    @property
    def interval(self) -> tuple[float, float]:
        found = estimate(np.array(list(self.right.values())))
        assert found is not None, "a cell has rows"
        return found.low or found.mean, found.high or found.mean

    def minus(self, other: Cell) -> Estimate:
        """The paired difference in accuracy, over the questions of both.

        Raises: ValueError where they share none.
        """
        shared = sorted(self.right.keys() & other.right.keys())
        a, b = (np.array([cell.right[name] for name in shared]) for cell in (other, self))
        comparison = compare(a, b)
        if comparison is None:
            raise ValueError(f"{self.policy} and {other.policy} share no question")
        return comparison.difference


@dataclass(frozen=True)
class Frontier:
    """All cells that there are, policies and budgets in the order of the rows."""

    cells: tuple[Cell, ...]

    @classmethod
    def of(cls, rows: pa.Table) -> Frontier:
        """From rows of `SCHEMA`. A row that failed counts as wrong, and stores nothing."""
        groups: dict[tuple[str, int | None], list[dict]] = {}
        for row in rows.to_pylist():
            groups.setdefault((row["policy"], row["budget"]), []).append(row)
        return cls(tuple(_cell(*key, members) for key, members in groups.items()))

    @cached_property
    def full(self) -> Cell | None:
        return next((cell for cell in self.cells if cell.policy == FULL), None)

    @property
    def budgets(self) -> list[int]:
        return sorted({cell.budget for cell in self.cells if cell.budget is not None})

    @property
    def policies(self) -> list[str]:
        """Without full."""
        return list(dict.fromkeys(cell.policy for cell in self.cells if cell.policy != FULL))

    def at(self, policy: str, budget: int) -> Cell | None:
        found = [c for c in self.cells if (c.policy, c.budget) == (policy, budget)]
        return found[0] if found else None

    def best(self, budget: int) -> Cell:
        return max((c for c in self.cells if c.budget == budget), key=lambda cell: cell.accuracy)

    def is_first(self, cell: Cell) -> bool:
        """Whether no policy at this budget is better for sure: the paired interval to the best one reaches 0."""
        assert cell.budget is not None, "full has no rival"
        difference = cell.minus(self.best(cell.budget))
        return difference.high is None or difference.high >= 0

    def smallest_budget(self, policy: str) -> int | None:
        """From which on the policy stays within `TOLERANCE` of the full cache; None if at no budget."""
        if self.full is None:
            return None
        found = None
        for cell in sorted(
            (c for c in self.cells if c.policy == policy), key=lambda c: -(c.budget or 0)
        ):
            if cell.minus(self.full).mean < -TOLERANCE:
                break
            found = cell.budget
        return found


def table(frontier: Frontier) -> Table:
    """For a terminal: accuracy, and the 95% interval of the difference to full, in points."""
    shown = Table(title=_title(frontier))
    shown.add_column("policy", style="bold", no_wrap=True)
    for budget in frontier.budgets:
        shown.add_column(_heading(frontier, budget), justify="right")
    shown.add_column("within 2 points from", justify="right")
    for policy in frontier.policies:
        cells = [frontier.at(policy, budget) for budget in frontier.budgets]
        smallest = frontier.smallest_budget(policy)
        shown.add_row(
            policy,
            *(_entry(frontier, cell) for cell in cells),
            "-" if smallest is None else str(smallest),
        )
    return shown


def picture(frontier: Frontier) -> str:
    """SVG: accuracy against stored tokens, a line a policy."""
    series = []
    for policy in frontier.policies:
        cells = [c for b in frontier.budgets if (c := frontier.at(policy, b)) is not None]
        points = tuple((cell.stored_tokens, cell.accuracy) for cell in cells)
        series.append(Series(policy, points, tuple(cell.interval for cell in cells)))
    if (full := frontier.full) is not None:
        series.append(Series(FULL, ((full.stored_tokens, full.accuracy),), (full.interval,)))
    return line_chart(
        series,
        title="Right answers by stored tokens",
        x_label="stored tokens per sequence (mean of the peaks)",
        y_label="right answers, with 95% intervals over questions",
    )


def _cell(policy: str, budget: int | None, rows: list[dict]) -> Cell:
    by_question: dict[str, list[bool]] = {}
    for row in rows:
        by_question.setdefault(row["request_id"], []).append(row["correct"])
    run = [row for row in rows if row["finish_reason"] != "error"]
    return Cell(
        policy=policy,
        budget=budget,
        right={name: float(np.mean(found)) for name, found in by_question.items()},
        stored_tokens=float(np.mean([row["peak_cache_len"] for row in run] or [0])),
        generated_tokens=float(np.mean([row["completion_tokens"] for row in run] or [0])),
    )


def _title(frontier: Frontier) -> str:
    full = frontier.full
    if full is None:
        return "no run with policy full yet"
    return (
        f"full cache: {full.accuracy:.1%} right, {full.stored_tokens:,.0f} stored tokens;"
        " * first, or not surely behind the first; in brackets: minus full, points, 95%"
    )


def _heading(frontier: Frontier, budget: int) -> str:
    if frontier.full is None:
        return str(budget)
    return f"{budget} ({budget / frontier.full.stored_tokens:.0%})"


def _entry(frontier: Frontier, cell: Cell | None) -> str:
    if cell is None:
        return ""
    mark = "*" if frontier.is_first(cell) else " "
    text = f"{100 * cell.accuracy:.1f}{mark}"
    if frontier.full is None:
        return text
    difference = cell.minus(frontier.full)
    if difference.low is None or difference.high is None:
        return text
    return f"{text} [{100 * difference.low:+.1f} {100 * difference.high:+.1f}]"
