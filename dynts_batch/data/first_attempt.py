"""Which rows need more room, and what is kept of their first attempt (policy.retry_budget).

A row's own outcome decides, so it does not matter who ran the row, or when. Knows nothing about
policies, workers or files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dynts_batch.data.schema import FIRST_ATTEMPT
from dynts_batch.data.shard_table import UNIT_COLUMNS, Unit, units_of

#: Graders of which every judged answer is a final answer found in the text.
_FIND_ANSWERS = ("math", "exact")
_CUT_OFF = ("length", "loop")
_ENDED = ("stop", *_CUT_OFF)
_OF_FIRST = tuple(field.name for field in FIRST_ATTEMPT if field.name != "budget")
_SUMMED = ("device_s", "energy_j", "cost_usd")
#: What `needs_retry` and `first_attempts` read.
COLUMNS = (
    *UNIT_COLUMNS,
    *_OF_FIRST,
    *("answer", "extracted_answer", "evicted_tokens", "first_attempt"),
)


def needs_retry(rows: pa.Table, grading_kind: str) -> pa.ChunkedArray:
    """Which of `rows` are to run again with more room, bool.

    They ended at the limit, in a loop or without an answer, and in their first attempt. A row that
    lost no token is not among them: more room would not change it.
    """
    reason = rows["finish_reason"]
    has_text = pc.greater(pc.utf8_length(pc.utf8_trim_whitespace(_text(rows["answer"]))), 0)
    has_answer = has_text
    if grading_kind in _FIND_ANSWERS:
        is_unfound = pc.and_(rows["correct"].is_valid(), rows["extracted_answer"].is_null())
        has_answer = pc.and_(has_text, pc.invert(is_unfound))
    failed = pc.or_(pc.is_in(reason, pa.array(_CUT_OFF)), pc.invert(has_answer))
    can_change = pc.and_(pc.is_in(reason, pa.array(_ENDED)), pc.greater(rows["evicted_tokens"], 0))
    return pc.and_(pc.and_(failed, can_change), rows["first_attempt"].is_null())


def first_attempts(rows: pa.Table, budget: int) -> dict[Unit, dict[str, Any]]:
    """The values of the column first_attempt, by unit, for `rows` that ran with `budget`."""
    facts = rows.select(_OF_FIRST).to_pylist()
    return {
        unit: {**row, "budget": budget} for unit, row in zip(units_of(rows), facts, strict=True)
    }


def with_first(row: Mapping[str, Any], first: Mapping[str, Any]) -> dict[str, Any]:
    """`row`, which is of a second attempt, with what both attempts took."""
    sums = {name: _sum(row[name], first[name]) for name in _SUMMED}
    return {**row, **sums, "first_attempt": dict(first)}


def _sum(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a + b


def _text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.fill_null(column, "")
