"""A shard as a table: the units it holds, the check that they are expected, its bytes on disk.

Knows nothing about files and folders.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dynts_batch.data.readers.columns import fit
from dynts_batch.data.schema import stored_schema
from dynts_batch.errors import RunDirError

Unit = tuple[str, int]
"""(request_id, sample_index) of one row."""

UNIT_COLUMNS = ["request_id", "sample_index"]
_ERROR_COLUMNS = (*UNIT_COLUMNS, "error_type", "error_message")


def units_of(table: pa.Table) -> list[Unit]:
    """The unit of every row."""
    ids, samples = (table[name].to_pylist() for name in UNIT_COLUMNS)
    return list(zip(ids, samples, strict=True))


def failed_rows(table: pa.Table) -> pa.Table:
    """The rows that are errors."""
    return table.filter(pc.equal(table["finish_reason"], "error"))


def in_order(shard: int, table: pa.Table, expected_units: Sequence[Unit]) -> pa.Table:
    """`table` in the order of `expected_units`.

    Raises: RunDirError if it does not hold each of them exactly once.
    """
    got = units_of(table)
    surplus, missing = Counter(got), Counter(expected_units)
    surplus, missing = surplus - missing, missing - surplus
    if surplus or missing:
        raise RunDirError(
            f"shard {shard} must hold each of its {len(expected_units)} units once, got {len(got)}"
            f" rows; missing: {list(missing)[:5]}, repeated or foreign: {list(surplus)[:5]}"
        )
    row_of = {unit: row for row, unit in enumerate(got)}
    return table.take([row_of[unit] for unit in expected_units])


def to_parquet(table: pa.Table) -> pa.Buffer:
    """`table` as the bytes of a Parquet file."""
    stream = pa.BufferOutputStream()
    pq.write_table(table, stream, compression="zstd")
    return stream.getvalue()


def units_in(data: pa.Buffer) -> list[Unit]:
    """The unit of every row of a Parquet file, as its readers will find it."""
    return units_of(pq.read_table(pa.BufferReader(data), columns=UNIT_COLUMNS))


def read_columns(file: pq.ParquetFile, columns: Sequence[str]) -> pa.Table:
    """Some columns of the rows in `file`. No others are fetched. Raises: pa.ArrowException."""
    schema = stored_schema(file.schema_arrow, columns)
    return fit(file.read(_present(file, schema)), schema)


def iter_columns(file: pq.ParquetFile, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """The rows in `file` by batch, with the columns of `schema`. Raises: pa.ArrowException."""
    for batch in file.iter_batches(columns=_present(file, schema)):
        yield fit(batch, schema)


def errors_of(table: pa.Table) -> list[dict[str, Any]]:
    """The unit and the error of each row that failed."""
    return failed_rows(table).select(_ERROR_COLUMNS).to_pylist()


def error_lines(table: pa.Table) -> bytes:
    """A line of JSON for each row that failed; b"" if none did."""
    return b"".join(f"{json.dumps(row)}\n".encode() for row in errors_of(table))


def read_error_lines(lines: bytes) -> list[dict[str, Any]] | None:
    """The content of `lines` from `error_lines`; None if they are something else."""
    try:
        errors = [json.loads(line) for line in lines.splitlines()]
    except ValueError:
        return None
    is_ours = all(isinstance(e, dict) and e.keys() == set(_ERROR_COLUMNS) for e in errors)
    return errors if errors and is_ours else None


def _present(file: pq.ParquetFile, schema: pa.Schema) -> list[str]:
    return [name for name in schema.names if name in file.schema_arrow.names]
