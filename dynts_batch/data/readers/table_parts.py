"""Pieces of Parquet and Arrow files that are read in one pass, from their start on.

Knows nothing about tables.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs as pafs

from dynts_batch.data.types.storable import stored_type, to_stored

_BATCH_ROWS = 256
_BUFFER_BYTES = 1 << 20  # per column: a row group is streamed, never loaded whole


class TablePart(Protocol):
    """Rows that can be read in one pass."""

    path: str
    num_rows: int

    def batches(self, names: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
        """All rows from the first on, with those of the columns `names` (None: all) that it has."""


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
            open_parquet(file, self._metadata) as parquet,
        ):
            columns = None
            if names is not None:
                columns = [name for name in names if name in parquet.schema_arrow.names]
            yield from parquet.iter_batches(_BATCH_ROWS, row_groups=[self._group], columns=columns)


class ArrowFile:
    """One Arrow IPC file, of the stream format (`datasets` writes it) or the file format.

    `far_columns` are those with seconds that do not fit in milliseconds.
    """

    def __init__(self, filesystem: pafs.FileSystem, path: str) -> None:
        self._fs, self.path = filesystem, path
        with self._open() as file:
            reader = _ipc_reader(file)
            self.schema = reader.schema
            self.num_rows, self.far_columns = 0, set[str]()
            for batch in _ipc_batches(reader):
                self.num_rows += batch.num_rows
                self.far_columns |= _far_columns(batch)

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


def open_parquet(file: pa.NativeFile, metadata: pq.FileMetaData | None = None) -> pq.ParquetFile:
    """Open a Parquet file, with 96-bit times, which Spark writes, read as microseconds.

    Arrow's default is nanoseconds: times after 2262 would silently become other times.
    """
    return pq.ParquetFile(
        file,
        metadata=metadata,
        buffer_size=_BUFFER_BYTES,
        pre_buffer=False,
        coerce_int96_timestamp_unit="us",
    )


def _far_columns(batch: pa.RecordBatch) -> set[str]:
    return {
        name
        for name, column in zip(batch.schema.names, batch.columns, strict=True)
        if _is_far(column)
    }


def _is_far(column: pa.Array) -> bool:
    if stored_type(column.type) == stored_type(column.type, is_far=True):
        return False  # it holds no seconds
    try:
        to_stored(column, stored_type(column.type))
    except pa.ArrowInvalid:
        return True
    return False


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
