"""Rows of a CSV file, by position, through an index of byte offsets of records.

All columns are text, as CSV has no types: an id "007" stays one. A record that is broken becomes a
row with an error. Knows nothing about prompts and ids.
"""

from __future__ import annotations

import csv
import hashlib
import io
from array import array
from collections.abc import Iterator, Sequence

import pyarrow as pa
from pyarrow import fs as pafs

from dynts_batch.data.readers.columnar import readable
from dynts_batch.data.readers.table import RawRow
from dynts_batch.errors import BadRowError, InputError

_BUFFER_BYTES = 1 << 20
_MAX_FIELD_CHARS = 1 << 28  # a quote that is never closed must not swallow all memory
_BOM = b"\xef\xbb\xbf"


class CsvTable:
    """One CSV file with a header (source.Table). Blank lines are no rows."""

    def __init__(self, filesystem: pafs.FileSystem, path: str, limit: int | None) -> None:
        """Index the first `limit` rows (None: all)."""
        self.path = path
        self._fs = filesystem
        self._starts = array("Q")  # byte offset of every record: 8 bytes per row
        self._lines = array("Q")  # and its line number, as a quoted field may span lines
        with readable(path):
            self._header, self._digest = self._index(limit)
        self.num_rows = len(self._starts)
        self.schema = pa.schema([(name, pa.string()) for name in self._header])

    def read(self, start: int, stop: int, names: Sequence[str] | None) -> Iterator[RawRow]:
        with readable(self.path), self._fs.open_input_file(self.path) as file:
            file.seek(self._starts[start] if start < stop else 0)
            records = _Records(file)
            for index in range(start, stop):
                yield self._raw_row(index, records)

    def place(self, index: int) -> str:
        return f"line {self._lines[index]}"

    def fingerprint(self) -> str:
        return self._digest

    def _index(self, limit: int | None) -> tuple[list[str], str]:
        with self._fs.open_input_file(self.path) as file:
            records = _Records(file)
            try:
                header = records.next_record() or []
            except BadRowError as bad:
                raise InputError(f"{self.path} must start with a header: {bad}") from None
            self._check_header(header)
            while len(self._starts) != limit:
                try:
                    if records.next_record() is None:
                        break
                except BadRowError:
                    pass  # read() reports it, as a row
                self._starts.append(records.start)
                self._lines.append(records.line)
            return header, records.digest.hexdigest()

    def _check_header(self, header: list[str]) -> None:
        repeated = {name for name in header if header.count(name) > 1}
        if repeated or "" in header:
            raise InputError(
                f"{self.path} must start with a header of different, non-empty column names,"
                f" got {header}"
            )

    def _raw_row(self, index: int, records: _Records) -> RawRow:
        try:
            record = records.next_record() or []
            if len(record) != len(self._header):
                got = f"got {len(record)}"
                raise BadRowError(f"must have {len(self._header)} fields like the header, {got}")
        except BadRowError as bad:
            error = BadRowError(f"{self.place(index)}: {bad}")
            return RawRow({}, {}, error, records.text)
        values = dict(zip(self._header, record, strict=True))
        return RawRow(values, values)


class _Records:
    """CSV records from the current position of a file on.

    `start`, `line` and `text` are the byte offset, the line number and the bytes of the record that
    was read last, broken or not. Lines count from where reading began.
    """

    def __init__(self, file: pa.NativeFile) -> None:
        self.start = self._next_start = file.tell()
        self.line = self._next_line = 1
        self.text = b""
        self.digest = hashlib.blake2b(digest_size=16)
        self._not_utf8 = ""
        self._file = io.BufferedReader(file, _BUFFER_BYTES)
        self._reader = csv.reader(self._decoded_lines(), strict=True)

    def next_record(self) -> list[str] | None:
        """The fields of the next record that is not a blank line, or None at the end.

        Raises:
            BadRowError: broken quoting or wrong UTF-8; the next call goes on behind it.
        """
        record: list[str] = []
        while not record:
            self.start, self.line, self.text = self._next_start, self._next_line, b""
            self._not_utf8 = ""
            previous = csv.field_size_limit(_MAX_FIELD_CHARS)  # Python's own limit is 128 KiB
            try:
                record = next(self._reader)
            except StopIteration:
                return None
            except csv.Error as error:
                raise BadRowError(f"must be CSV: {error}") from None
            finally:
                csv.field_size_limit(previous)
            if self._not_utf8:
                raise BadRowError(self._not_utf8)
        return record

    def _decoded_lines(self) -> Iterator[str]:
        for line in self._file:
            at_start = self._next_start == 0
            self._next_start += len(line)
            self._next_line += 1
            self.text += line
            self.digest.update(line)
            try:
                yield (line.removeprefix(_BOM) if at_start else line).decode()
            except UnicodeDecodeError as error:
                self._not_utf8 = f"must be UTF-8, got byte {error.object[error.start]:#04x}"
                yield line.decode(errors="replace")
