"""The columns that the configuration names: they are there, and of types that can serve. Knows nothing about rows."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa

from dynts_batch.config import InputConfig
from dynts_batch.data.readers.table import Table
from dynts_batch.data.types.nested import is_list
from dynts_batch.errors import InputError, choices_hint

_TEXT_IDS = {
    *(pa.string().id, pa.large_string().id, pa.string_view().id),
    *(pa.binary().id, pa.large_binary().id, pa.binary_view().id),
}


def check_columns(table: Table, config: InputConfig) -> None:
    """Raises: InputError where a column is missing, or cannot be what it is named as."""
    names = table.schema.names
    for key in ("id_column", "prompt_column", "messages_column", "reference_column"):
        column = getattr(config, key)
        if column is None:
            continue
        if column not in names:
            raise InputError(
                f"input.{key} {column!r} is not a column of {table.path}. {choices_hint(column, names)}"
            )
        serves, words = _NEEDS.get(key, (None, ""))
        type_ = table.schema.field(column).type
        if serves is not None and not serves(bare_type(type_)):
            raise InputError(
                f"input.{key} {column!r} of {table.path} must hold {words}, got {type_}"
            )


def bare_type(type_: pa.DataType) -> pa.DataType:
    """`type_` without encodings and extensions around it."""
    while True:
        if pa.types.is_dictionary(type_) or pa.types.is_run_end_encoded(type_):
            type_ = type_.value_type
        elif isinstance(type_, pa.BaseExtensionType) and type_.extension_name != "arrow.uuid":
            type_ = type_.storage_type
        else:
            return type_


def is_text(type_: pa.DataType) -> bool:
    """Whether it is text, or bytes that may be: several writers of Parquet do not say which."""
    return type_.id in _TEXT_IDS


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
