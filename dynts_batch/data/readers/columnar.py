"""Rows of Parquet and Arrow files, by position, a batch at a time.

A table is a series of parts (a Parquet row group, an Arrow file), each of which can only be read
forward from its start. Knows nothing about prompts and ids.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from typing import Protocol

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs as pafs

from dynts_batch.data.readers.table import RawRow
from dynts_batch.errors import BadRowError, InputError

_BATCH_ROWS = 256
_BUFFER_BYTES = 1 << 20  # per column: a row group is streamed, never loaded


class TablePart(Protocol):
    """Rows that can be read in one pass."""

    path: str
    num_rows: int

    def batches(self, names: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
        """All rows from the first on, with the columns `names` (None: all) it has."""


class ParquetGroup:
    """One row group of one Parquet file."""

    def __init__(
        self, filesystem: pafs.FileSystem, path: str, metadata: pq.FileMetaData, group: int
    ) -> None:
        self._fs, self.path, self._metadata, self._group = filesystem, path, metadata, group
        self.num_rows = metadata.row_group(group).num_rows

    def batches(self, names: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
        with (
            self._fs.open_input_file(self.path) as file,
            pq.ParquetFile(
                file, metadata=self._metadata, buffer_size=_BUFFER_BYTES, pre_buffer=False
            ) as parquet,
        ):
            columns = None
            if names is not None:
                columns = [name for name in names if name in parquet.schema_arrow.names]
            yield from parquet.iter_batches(_BATCH_ROWS, row_groups=[self._group], columns=columns)


class ArrowFile:
    """One Arrow IPC file, of the stream format (`datasets` writes it) or the file format."""

    def __init__(self, filesystem: pafs.FileSystem, path: str) -> None:
        self._fs, self.path = filesystem, path
        with self._open() as file:
            reader = _ipc_reader(file)
            self.schema = reader.schema
            self.num_rows = sum(batch.num_rows for batch in _ipc_batches(reader))

    def batches(self, names: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
        with self._open() as file:
            for batch in _ipc_batches(_ipc_reader(file)):
                if names is not None:
                    batch = batch.select([name for name in names if name in batch.schema.names])
                for start in range(0, batch.num_rows, _BATCH_ROWS):
                    yield batch.slice(start, _BATCH_ROWS)

    def _open(self) -> pa.NativeFile:
        if isinstance(self._fs, pafs.LocalFileSystem):
            return pa.memory_map(self.path)  # skipping batches costs nothing
        return self._fs.open_input_file(self.path)


class ColumnarTable:
    """Parts as one table (source.Table). For one thread: it remembers where it stopped."""

    def __init__(
        self,
        filesystem: pafs.FileSystem,
        path: str,
        parts: Sequence[TablePart],
        schema: pa.Schema,
    ) -> None:
        self.path = path
        self.schema = schema.remove_metadata()
        self._fs = filesystem
        self._parts = parts
        self._ends = list(accumulate(part.num_rows for part in parts))
        self.num_rows = self._ends[-1] if parts else 0
        self._cursor: _Cursor | None = None

    def read(self, start: int, stop: int, names: Sequence[str] | None) -> Iterator[RawRow]:
        with readable(self.path):
            for batch in self._slices(start, stop, names):
                yield from self._raw_rows(start, batch)
                start += batch.num_rows

    def place(self, index: int) -> str:
        return f"row {index}"

    def fingerprint(self) -> str:
        digest = hashlib.blake2b(digest_size=16)
        with readable(self.path):
            for path in dict.fromkeys(part.path for part in self._parts):
                with self._fs.open_input_stream(path, compression=None) as stream:
                    while block := stream.read(1 << 20):
                        digest.update(block)
        return digest.hexdigest()

    def _raw_rows(self, start: int, batch: pa.RecordBatch) -> Iterator[RawRow]:
        try:
            for values in batch.to_pylist():
                yield RawRow(values, values)
        except UnicodeDecodeError:  # Arrow does not check UTF-8 on reading: find the broken rows
            for offset in range(batch.num_rows):
                yield self._checked_row(start + offset, batch.slice(offset, 1))

    def _checked_row(self, index: int, row: pa.RecordBatch) -> RawRow:
        try:
            (values,) = row.to_pylist()
        except UnicodeDecodeError:
            return RawRow({}, {}, BadRowError(f"{self.place(index)}: text must be UTF-8"))
        return RawRow(values, values)

    def _slices(
        self, start: int, stop: int, names: Sequence[str] | None
    ) -> Iterator[pa.RecordBatch]:
        cursor = self._cursor_for(start) if names is None else self._new_cursor(start, names)
        while start < stop:
            piece = cursor.seek(start).slice(start - cursor.first_row, stop - start)
            start += piece.num_rows
            yield piece

    def _cursor_for(self, row: int) -> _Cursor:
        """The cursor of the last read if `row` is ahead of it and no later part starts nearer.

        Shards are read in ascending order: going on makes a whole run one pass, where starting
        each shard at its part's first row would be quadratic.
        """
        cursor = self._cursor
        if cursor is None or not cursor.first_row <= row or cursor.end_row < self._first_row(row):
            cursor = self._cursor = self._new_cursor(row, None)
        return cursor

    def _new_cursor(self, row: int, names: Sequence[str] | None) -> _Cursor:
        parts = self._parts[bisect_right(self._ends, row) :]
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


@contextmanager
def readable(path: str) -> Iterator[None]:
    """Turn pyarrow's and the system's errors into an InputError that names `path`."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"cannot read {path}: {error}") from error


def _conform(
    batch: pa.RecordBatch, schema: pa.Schema, names: Sequence[str] | None
) -> pa.RecordBatch:
    """`batch` with the fields of `schema`: one of many files may lack some or differ in width."""
    wanted = [field for field in schema if names is None or field.name in names]
    if batch.schema.names == [field.name for field in wanted] and all(
        mine.type == field.type for mine, field in zip(batch.schema, wanted, strict=True)
    ):
        return batch
    columns = []
    for field in wanted:
        if field.name in batch.schema.names:
            columns.append(batch.column(field.name).cast(field.type))
        else:
            columns.append(pa.nulls(batch.num_rows, field.type))
    return pa.RecordBatch.from_arrays(columns, schema=pa.schema(wanted))


def _ipc_reader(file: pa.NativeFile) -> pa.RecordBatchFileReader | pa.RecordBatchStreamReader:
    is_file_format = file.read(6) == b"ARROW1"
    file.seek(0)
    return pa.ipc.open_file(file) if is_file_format else pa.ipc.open_stream(file)


def _ipc_batches(
    reader: pa.RecordBatchFileReader | pa.RecordBatchStreamReader,
) -> Iterator[pa.RecordBatch]:
    if isinstance(reader, pa.RecordBatchStreamReader):
        yield from reader
    else:
        yield from map(reader.get_batch, range(reader.num_record_batches))
