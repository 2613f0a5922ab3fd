"""Rows of Parquet and Arrow files, by position, a batch at a time.

A table is a series of parts: a Parquet row group or an Arrow file each. A part can only be read
forward from its start. Knows nothing about prompts and ids.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate

import pyarrow as pa
from pyarrow import fs as pafs

from dynts_batch.data.readers.table import Block, RawRow
from dynts_batch.data.readers.table_parts import TablePart
from dynts_batch.data.readers.unreadable import readable
from dynts_batch.data.readers.values import readable_values
from dynts_batch.errors import BadRowError, InputError


class ColumnarTable:
    """Parts as one table (table.Table). For one thread, because it remembers where it stopped."""

    pads_objects = True

    def __init__(
        self,
        filesystem: pafs.FileSystem,
        path: str,
        parts: Sequence[TablePart],
        schema: pa.Schema,
    ) -> None:
        self.path = path
        # Nullable, because no row is left out. A row may come from a file without a column, or be
        # undecodable.
        self.schema = pa.schema([field.with_nullable(True) for field in schema])
        self._fs = filesystem
        self._segments = parts
        self._ends = list(accumulate(part.num_rows for part in parts))
        self.num_rows = self._ends[-1] if parts else 0
        self._cursor: _Cursor | None = None

    def read(self, start: int, stop: int, names: Sequence[str]) -> Iterator[RawRow]:
        with readable(self.path):
            for batch in self._slices(self._new_cursor(start, names), start, stop):
                yield from self._raw_rows(start, batch, names)
                start += batch.num_rows

    def blocks(self, start: int, stop: int, names: Sequence[str]) -> Iterator[Block]:
        with readable(self.path):
            for batch in self._slices(self._cursor_for(start), start, stop):
                rows = list(self._raw_rows(start, batch, names))
                yield Block(rows, _without_broken_text(batch, rows, names))
                start += batch.num_rows

    def place(self, index: int) -> str:
        return f"row {index}"

    def fingerprint(self) -> str:
        digest = hashlib.blake2b(digest_size=16)
        with readable(self.path):
            for path in dict.fromkeys(part.path for part in self._segments):
                with self._fs.open_input_stream(path, compression=None) as stream:
                    while block := stream.read(1 << 20):
                        digest.update(block)
        return digest.hexdigest()

    def _raw_rows(
        self, start: int, batch: pa.RecordBatch, names: Sequence[str]
    ) -> Iterator[RawRow]:
        try:
            columns = [readable_values(batch.column(name)) for name in names]
        except UnicodeDecodeError:  # Arrow does not check UTF-8 on reading: find the broken rows
            if batch.num_rows == 1:
                bad = BadRowError(f"{self.place(start)}: text must be UTF-8")
                yield RawRow({}, bad)
                return
            for offset in range(batch.num_rows):
                yield from self._raw_rows(start + offset, batch.slice(offset, 1), names)
            return
        for values in zip(*columns, strict=True) if columns else ((),) * batch.num_rows:
            yield RawRow(dict(zip(names, values, strict=True)))

    def _slices(self, cursor: _Cursor, start: int, stop: int) -> Iterator[pa.RecordBatch]:
        while start < stop:
            piece = cursor.seek(start).slice(start - cursor.first_row, stop - start)
            start += piece.num_rows
            yield piece

    def _cursor_for(self, row: int) -> _Cursor:
        """The cursor of the last read if `row` is ahead of it and no later part starts nearer.

        Shards are read in ascending order, so going on makes a whole run one pass. Starting each
        shard at its part's first row would be quadratic.
        """
        cursor = self._cursor
        if cursor is None or not cursor.first_row <= row or cursor.end_row < self._first_row(row):
            cursor = self._cursor = self._new_cursor(row, None)
        return cursor

    def _new_cursor(self, row: int, names: Sequence[str] | None) -> _Cursor:
        parts = self._segments[bisect_right(self._ends, row) :]
        batches = (
            _conform(batch, self.schema, names) for part in parts for batch in part.batches(names)
        )
        return _Cursor(batches, self._first_row(row))

    def _first_row(self, row: int) -> int:
        """First row of the part that holds `row`."""
        return [0, *self._ends][bisect_right(self._ends, row)]


class _Cursor:
    """A forward reader that holds on to its current batch: rows first_row..end_row-1."""

    def __init__(self, batches: Iterator[pa.RecordBatch], first_row: int) -> None:
        self._batches = batches
        self._batch: pa.RecordBatch | None = None
        self.first_row = self.end_row = first_row

    def seek(self, row: int) -> pa.RecordBatch:
        """Move on to the batch that holds `row`."""
        while self._batch is None or row >= self.end_row:
            batch = next(self._batches, None)
            if batch is None:
                raise pa.ArrowInvalid(f"the data end at row {self.end_row}, before row {row}")
            self._batch = batch
            self.first_row, self.end_row = self.end_row, self.end_row + batch.num_rows
        return self._batch


def _conform(
    batch: pa.RecordBatch, schema: pa.Schema, names: Sequence[str] | None
) -> pa.RecordBatch:
    """`batch` with the fields of `schema`. One of many files may lack some or differ in width."""
    wanted = [field for field in schema if names is None or field.name in names]
    columns = []
    for field in wanted:
        if field.name not in batch.schema.names:
            columns.append(pa.nulls(batch.num_rows, field.type))
            continue
        column = batch.column(field.name)
        columns.append(column if column.type == field.type else column.cast(field.type))
    return pa.RecordBatch.from_arrays(columns, schema=pa.schema(wanted))


def check_fit(part: TablePart, found: pa.Schema, unified: pa.Schema) -> None:
    """Read the columns of `part` that have another type in the table, if their values may not fit
    it: a large integer where another file has floats, a far date where one has nanoseconds.

    Raises: InputError if one does not.
    """
    wanted = {
        field.name: unified.field(field.name).type
        for field in found
        if not _always_fits(field.type, unified.field(field.name).type)
    }
    if not wanted:
        return
    with readable(part.path):
        for batch in part.batches([*wanted]):
            for name, column in zip(batch.schema.names, batch.columns, strict=True):
                try:
                    column.cast(wanted[name])
                except pa.ArrowException as error:
                    raise InputError(
                        f"column {name!r} of {part.path} is {column.type}, and with the other files"
                        f" {wanted[name]}, which does not hold it ({error}). Write all files with"
                        " one type"
                    ) from error


def _always_fits(found: pa.DataType, wanted: pa.DataType) -> bool:
    if found == wanted or pa.types.is_null(found):
        return True
    for is_kind in (pa.types.is_signed_integer, pa.types.is_floating):
        if is_kind(found) and is_kind(wanted):
            return True  # `wanted` is the wider one
    may_differ = pa.types.is_primitive(wanted) or pa.types.is_nested(wanted)
    return not (may_differ or pa.types.is_decimal(wanted))


def _without_broken_text(
    batch: pa.RecordBatch, rows: Sequence[RawRow], names: Sequence[str]
) -> pa.RecordBatch:
    """`batch` with null for text that cannot be read.

    A reader of the output would stumble over it too.
    """
    broken = [index for index, row in enumerate(rows) if row.error is not None]
    if not broken:
        return batch
    columns = []
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if name in names:
            bounds = zip([-1, *broken], [*broken, batch.num_rows], strict=True)
            pieces = [column.slice(last + 1, row - last - 1) for last, row in bounds]
            nulls = pa.nulls(1, column.type)
            column = pa.concat_arrays([p for piece in pieces for p in (piece, nulls)][:-1])
        columns.append(column)
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)
