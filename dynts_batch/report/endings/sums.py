"""Sums over rows whose end was not the model's: cut thinking, loops, and second attempts."""

from __future__ import annotations

from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

#: What `Endings.add` reads.
COLUMNS = (
    *("finish_reason", "forced_end", "correct"),
    *("completion_tokens", "cost_usd", "first_attempt"),
)


@dataclass
class Cut:
    """Rows that the engine has cut in one way."""

    num_rows: int = 0
    num_right: int = 0
    tokens: int = 0
    """Generated tokens of these rows."""

    def add(self, rows: pa.RecordBatch) -> None:
        self.num_rows += rows.num_rows
        self.num_right += _sum(rows["correct"])
        self.tokens += _sum(rows["completion_tokens"])


@dataclass
class Retries:
    """Rows that ran again with more room (policy.retry_budget)."""

    num_rows: int = 0
    num_right: int = 0
    num_right_before: int | None = 0
    """By their first attempts. None if rows have been judged by other rules since (`grade`): the
    answers of first attempts are not stored."""
    usd: float | None = 0.0
    """Dollars of the second attempts alone. None if any is unknown."""

    @property
    def num_gained(self) -> int | None:
        """Right answers that the first attempts did not give. None if that is unknown."""
        return None if self.num_right_before is None else self.num_right - self.num_right_before

    def add(self, rows: pa.RecordBatch) -> None:
        first = rows["first_attempt"]
        self.num_rows += rows.num_rows
        self.num_right += _sum(rows["correct"])
        before = pc.struct_field(first, "correct")
        is_failed = pc.equal(pc.struct_field(first, "finish_reason"), "error")
        is_judged = pc.or_(pc.or_(before.is_valid(), is_failed), rows["correct"].is_null())
        if self.num_right_before is not None:
            is_known = pc.all(is_judged, min_count=0).as_py()
            self.num_right_before = self.num_right_before + _sum(before) if is_known else None
        usd = pc.subtract(rows["cost_usd"], pc.struct_field(first, "cost_usd"))
        is_known = self.usd is not None and not usd.null_count
        self.usd = (self.usd or 0.0) + _sum(usd) if is_known else None


@dataclass
class Endings:
    """Of a run. Error and skipped rows do not count."""

    budget: Cut = field(default_factory=Cut)
    """Thinking that sampling.max_thinking_tokens ended."""
    loop: Cut = field(default_factory=Cut)
    """Thinking or rows that ended because they repeated themselves."""
    retries: Retries = field(default_factory=Retries)

    def add(self, rows: pa.RecordBatch) -> None:
        """`rows` have at least `COLUMNS`."""
        self.budget.add(rows.filter(_is(rows, "forced_end", "budget")))
        is_loop = pc.or_(_is(rows, "forced_end", "loop"), _is(rows, "finish_reason", "loop"))
        self.loop.add(rows.filter(is_loop))
        self.retries.add(rows.filter(rows["first_attempt"].is_valid()))


def _is(rows: pa.RecordBatch, column: str, value: str) -> pa.Array:
    return pc.fill_null(pc.equal(rows[column], value), fill_value=False)


def _sum(column: pa.Array) -> int:
    return pc.sum(column).as_py() or 0
