"""Stored tables, fitted to the columns that this version reads.

A file may be older than a column. Another program may have written its whole numbers as floats. It
may also be no such file at all. Knows nothing about what the columns mean.
"""

from __future__ import annotations

from typing import TypeVar

import pyarrow as pa

Columns = TypeVar("Columns", pa.Table, pa.RecordBatch)


def fit(table: Columns, schema: pa.Schema) -> Columns:
    """`table` with the columns of `schema`, in their order. A missing nullable column is null.

    Raises: pa.ArrowException if a column is missing, null, or of a type that cannot be cast without
    loss.
    """
    if table.schema.equals(schema) and not any(
        table[field.name].null_count for field in schema if not field.nullable
    ):
        return table
    check_names(table.schema, schema)
    return type(table).from_arrays([_column(table, field) for field in schema], schema=schema)


def check_names(stored: pa.Schema, schema: pa.Schema) -> None:
    """Raises: pa.ArrowInvalid if `stored` lacks a column that is not nullable, or has one twice."""
    missing = [
        field.name for field in schema if not field.nullable and field.name not in stored.names
    ]
    if missing:
        raise pa.ArrowInvalid(f"it lacks {', '.join(missing)}")
    if len(set(stored.names)) < len(stored.names):
        raise pa.ArrowInvalid("it has a column twice")


def _column(table: Columns, field: pa.Field) -> pa.Array | pa.ChunkedArray:
    if field.name not in table.schema.names:
        return pa.nulls(table.num_rows, field.type)
    column = table[field.name]
    if not column.type.equals(field.type):
        column = column.cast(field.type)
    if column.null_count and not field.nullable:
        raise pa.ArrowInvalid(f"{field.name} must not be null")
    return column
