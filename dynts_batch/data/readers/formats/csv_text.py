"""Rows of CSV files, by position, through an index of byte offsets of records.

All columns are text, because CSV has no types: an id "007" stays text. A broken record becomes a
row with an error. Knows nothing about prompts and ids.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from dynts_batch.data.readers.formats.csv_file import CsvFile
from dynts_batch.data.readers.formats.file_series import FileSeries
from dynts_batch.data.readers.formats.text_file import TextFile
from dynts_batch.data.readers.table import Block, RawRow
from dynts_batch.data.readers.unreadable import readable
from dynts_batch.errors import BadRowError

_BLOCK_ROWS = 256


class CsvTable:
    """Files with a header each, as one table (table.Table). Blank lines are no rows."""

    pads_objects = False

    def __init__(self, files: Sequence[TextFile], path: str, limit: int | None) -> None:
        """Index the first `limit` rows (None: all)."""
        self.path = path
        indexed: list[CsvFile] = []
        for file in files:
            left = None if limit is None else limit - sum(one.num_rows for one in indexed)
            with readable(file.path):
                indexed.append(CsvFile(file, left))
        self._files = FileSeries(indexed)
        self.num_rows = self._files.num_rows
        names = dict.fromkeys(name for file in indexed for name in file.header)
        self.schema = pa.schema([(name, pa.string()) for name in names])

    def read(self, start: int, stop: int, names: Sequence[str]) -> Iterator[RawRow]:
        with readable(self.path):
            for index, record in enumerate(self._files.rows(start, stop), start):
                if record.error is None:
                    yield RawRow(record.values)
                else:
                    error = BadRowError(f"{self.place(index)}: {record.error}")
                    yield RawRow({}, error, record.text)

    def blocks(self, start: int, stop: int, names: Sequence[str]) -> Iterator[Block]:
        for first in range(start, stop, _BLOCK_ROWS):
            rows = list(self.read(first, min(first + _BLOCK_ROWS, stop), names))
            columns = [
                pa.array([row.values.get(name) for row in rows], pa.string())
                for name in self.schema.names
            ]
            yield Block(rows, pa.RecordBatch.from_arrays(columns, schema=self.schema))

    def place(self, index: int) -> str:
        return self._files.place(index)

    def fingerprint(self) -> str:
        return self._files.digest
