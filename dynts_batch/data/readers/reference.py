"""The right answer of a row, as text that a grader can compare with. Knows nothing about columns and files."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from dynts_batch.data.schema import JSON_TEXT
from dynts_batch.data.types.json_values import json_values


def reference_text(value: Any) -> str | None:
    """`value`, which is JSON data, as text; None where there is nothing to compare with.

    A list holds the parts of one answer: they stand with commas between. One in a list is a point or a tuple.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, Sequence):
        texts = [text for text in map(_part_text, value) if text is not None]
        return ", ".join(texts) or None
    if value is None or value == {} or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return json.dumps(value, ensure_ascii=False)


def reference_texts(field: pa.Field, column: pa.ChunkedArray) -> list[str | None]:
    """The texts of a stored reference column."""
    values = json_values(column)
    if JSON_TEXT in (field.metadata or {}):
        values = [None if value is None else json.loads(value) for value in values]
    return [reference_text(value) for value in values]


def _part_text(value: Any) -> str | None:
    text = reference_text(value)
    is_tuple = isinstance(value, list) and len(value) > 1
    return f"({text})" if is_tuple and text is not None else text
