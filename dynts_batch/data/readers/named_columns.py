"""Checks that the columns which the configuration names exist and have types that can serve.

Knows nothing about rows.
"""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa

from dynts_batch.config import InputConfig
from dynts_batch.data.readers.table import Table
from dynts_batch.data.readers.values import bare_type, is_text
from dynts_batch.data.types.nested import is_list
from dynts_batch.errors import InputError, choices_hint


def check_columns(table: Table, config: InputConfig) -> None:
    """Raises: InputError if a column is missing, or cannot be what it is named as."""
    names = table.schema.names
    for key in ("id_column", "prompt_column", "messages_column", "reference_column"):
        column = getattr(config, key)
        if column is None:
            continue
        if column not in names:
            raise InputError(
                f"input.{key} {column!r} is not a column of {table.path}. "
                f"{choices_hint(column, names)}"
            )
        serves, words = _NEEDS.get(key, (None, ""))
        type_ = table.schema.field(column).type
        if serves is not None and not serves(bare_type(type_)):
            raise InputError(
                f"input.{key} {column!r} of {table.path} must hold {words}, got {type_}"
            )


def _is_identity(type_: pa.DataType) -> bool:
    is_whole = pa.types.is_integer(type_) or (pa.types.is_decimal(type_) and type_.scale == 0)
    return is_whole or is_text(type_) or isinstance(type_, pa.BaseExtensionType)


def _is_chat(type_: pa.DataType) -> bool:
    return is_text(type_) or is_list(type_)


_NEEDS: dict[str, tuple[Callable[[pa.DataType], bool], str]] = {
    "id_column": (_is_identity, "text or integers"),
    "prompt_column": (is_text, "text"),
    "messages_column": (_is_chat, "lists of {role, content}"),
}
