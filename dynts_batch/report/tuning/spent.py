"""What rows took: device time, dollars, tokens and memory, also beside the full cache."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

from dynts_batch.report.tuning.losses import Row

#: All columns of a run's rows that tuning reads.
COLUMNS = (
    *("sample_index", "finish_reason", "correct", "extracted_answer", "completion_tokens"),
    *("peak_cache_len", "peak_kv_bytes", "device_s", "cost_usd"),
)


@dataclass(frozen=True)
class Spent:
    """Sums over rows."""

    num_rows: int = 0
    completion_tokens: int = 0
    device_s: float = 0.0
    usd: float | None = 0.0
    """None if a row has no price."""
    stored_bytes: int = 0
    """Sum of each row's peak."""

    @classmethod
    def on(cls, questions: Iterable[Sequence[Row]]) -> Self:
        """`questions` hold their rows."""
        rows = [row for question in questions for row in question]
        costs = [row["cost_usd"] for row in rows]
        return cls(
            num_rows=len(rows),
            completion_tokens=sum(row["completion_tokens"] for row in rows),
            device_s=sum(row["device_s"] for row in rows),
            usd=None if None in costs else sum(costs),
            stored_bytes=sum(row["peak_kv_bytes"] for row in rows),
        )

    def __add__(self, other: Spent) -> Spent:
        usd = None if self.usd is None or other.usd is None else self.usd + other.usd
        return Spent(
            self.num_rows + other.num_rows,
            self.completion_tokens + other.completion_tokens,
            self.device_s + other.device_s,
            usd,
            self.stored_bytes + other.stored_bytes,
        )

    def cost_over(self, other: Spent) -> float | None:
        """A share of what `other` cost: in dollars, or without prices in device time."""
        mine, its = (
            (self.usd, other.usd) if self.usd and other.usd else (self.device_s, other.device_s)
        )
        return mine / its if its else None
