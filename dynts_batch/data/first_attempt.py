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
from dynts_batch.errors import PromptTooLongError

#: Graders of which every judged answer is a final answer found in the text.
_FIND_ANSWERS = ("math", "exact")
_CUT_OFF = ("length", "loop")
_TOO_LONG = PromptTooLongError.__name__
_OF_FIRST = tuple(field.name for field in FIRST_ATTEMPT if field.name != "budget")
_SUMMED = ("device_s", "energy_j", "cost_usd")
#: What `needs_retry` and `first_attempts` read.
COLUMNS = (
    *UNIT_COLUMNS,
    *_OF_FIRST,
    *("answer", "extracted_answer", "evicted_tokens", "error_type", "first_attempt"),
)


def needs_retry(rows: pa.Table, grading_kind: str) -> pa.ChunkedArray:
    """Which of `rows` are to run again with more room, bool.

    They ended at the limit, in a loop or without an answer, or their prompt did not fit, and it was
    their first attempt. A row that lost no token is not among them: more room would not change it.
    Nor is one whose question has skipped samples (sampling.stop_when): that one is decided. All
    samples of a question must be in `rows` then.
    """
    reason = rows["finish_reason"]
    is_cut_off = pc.is_in(reason, pa.array(_CUT_OFF))
    is_unanswered = pc.and_(pc.equal(reason, "stop"), _has_no_answer(rows, grading_kind))
    has_lost = pc.greater(rows["evicted_tokens"], 0)
    is_too_long = pc.fill_null(pc.equal(rows["error_type"], _TOO_LONG), fill_value=False)
    is_due = pc.or_(pc.and_(pc.or_(is_cut_off, is_unanswered), has_lost), is_too_long)
    decided = rows["request_id"].filter(pc.equal(reason, "skipped"))
    is_open = pc.invert(pc.is_in(rows["request_id"], decided))
    return pc.and_(pc.and_(is_due, is_open), rows["first_attempt"].is_null())


def _has_no_answer(rows: pa.Table, grading_kind: str) -> pa.ChunkedArray:
    text = pc.utf8_trim_whitespace(pc.fill_null(rows["answer"], ""))
    is_empty = pc.equal(pc.utf8_length(text), 0)
    if grading_kind not in _FIND_ANSWERS:
        return is_empty
    is_unfound = pc.and_(rows["correct"].is_valid(), rows["extracted_answer"].is_null())
    return pc.or_(is_empty, is_unfound)


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
