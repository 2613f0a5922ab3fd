"""The cells of a column that is read, as JSON data. Knows nothing about what they mean."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from dynts_batch.data.types.json_values import json_values

_TEXT_IDS = {pa.string().id, pa.large_string().id, pa.string_view().id}
_BINARY_IDS = {pa.binary().id, pa.large_binary().id, pa.binary_view().id}


def readable_values(column: pa.Array) -> list[Any]:
    """The cells as JSON data. Bytes become text: naming their column as prompt or id means that.

    Raises: UnicodeDecodeError if text is not UTF-8, which Arrow does not check when it reads.
    """
    if bare_type(column.type).id not in _BINARY_IDS:
        return json_values(column)
    return [None if value is None else value.decode() for value in column.to_pylist()]


def is_text(type_: pa.DataType) -> bool:
    """Whether it is text, or bytes that may be: several writers of Parquet do not say which."""
    return type_.id in _TEXT_IDS | _BINARY_IDS


def bare_type(type_: pa.DataType) -> pa.DataType:
    """`type_` without encodings and extensions around it. A UUID stays a UUID."""
    while True:
        if pa.types.is_dictionary(type_) or pa.types.is_run_end_encoded(type_):
            type_ = type_.value_type
        elif isinstance(type_, pa.BaseExtensionType) and type_.extension_name != "arrow.uuid":
            type_ = type_.storage_type
        else:
            return type_
