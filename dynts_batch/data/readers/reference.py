"""The right answer of a row, as text that a grader can compare. Knows nothing about columns."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from dynts_batch.data.readers.values import readable_values
from dynts_batch.data.schema import JSON_TEXT, restored


def reference_text(value: Any) -> str | None:
    """`value`, which is JSON data, as text; None if there is nothing to compare with.

    A list holds the parts of one answer, so commas join them. A list in a list is a point or a
    tuple.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, Sequence):
        texts = [text for text in map(_part_text, value) if text is not None]
        return ", ".join(texts) or None
    if value is None or value == {} or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return json.dumps(value, ensure_ascii=False)


def reference_texts(stored: pa.RecordBatch) -> list[str | None]:
    """The texts of a reference column as rows store it. `stored` has only this column."""
    column = restored(stored)
    values = readable_values(column.column(0))
    if JSON_TEXT in (column.schema.field(0).metadata or {}):
        values = [None if value is None else json.loads(value) for value in values]
    return [reference_text(value) for value in values]


def _part_text(value: Any) -> str | None:
    text = reference_text(value)
    is_tuple = isinstance(value, list) and len(value) > 1
    return f"({text})" if is_tuple and text is not None else text
