"""One CSV file: its header, where its records are, and what each holds.

The separator is a comma if the header has one, else a semicolon or a tab. Spreadsheets write those
where numbers have decimal commas. A column without a name gets the name that pandas gives. Knows
nothing about other files.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pyarrow as pa

from dynts_batch.data.readers.formats.text_file import TextFile
from dynts_batch.errors import BadRowError, InputError

_BUFFER_BYTES = 1 << 20
_MAX_FIELD_CHARS = 1 << 28  # a quote that is never closed must not swallow all memory
_BOM = b"\xef\xbb\xbf"
_SEPARATORS = (",", ";", "\t")
#: Excel may write a line before the header that names the separator.
_SEPARATOR_LINE = "sep="


@dataclass(frozen=True, slots=True)
class Record:
    """One row: its fields by column, or the reason that it has none."""

    values: Mapping[str, str]
    error: BadRowError | None = None
    text: bytes = b""
    """The row's bytes, if there is an error."""


class CsvFile:
    """An index of 16 bytes a row, and a hash of what was read. Blank lines are no rows."""

    def __init__(self, file: TextFile, limit: int | None) -> None:
        """Index the first `limit` rows (None: all).

        Raises: InputError if it has no header.
        """
        self.path = file.path
        self._file = file
        self._starts = array("Q")  # byte offset of every record
        self._lines = array("Q")  # its line number, because a quoted field may span lines
        self._separator = _separator(file)
        with file.open() as raw:
            records = _Records(raw, self._separator)
            header = self._read_header(records)
            while len(self._starts) != limit:
                with contextlib.suppress(BadRowError):  # rows() reports it
                    if records.next_record() is None:
                        break
                self._starts.append(records.start)
                self._lines.append(records.line)
            self.digest = records.digest.hexdigest()
        self.header = _named(["", *header] if self._has_row_names(header) else header)
        self.num_rows = len(self._starts)

    def rows(self, start: int, stop: int) -> Iterator[Record]:
        with self._file.open() as raw:
            raw.seek(self._starts[start])
            records = _Records(raw, self._separator)
            for _ in range(start, stop):
                yield self._record(records)

    def place(self, index: int) -> str:
        return f"line {self._lines[index]}"

    def _read_header(self, records: _Records) -> list[str]:
        try:
            header = records.next_record() or []
            if header and header[0].startswith(_SEPARATOR_LINE):
                header = records.next_record() or []
        except BadRowError as bad:
            raise InputError(f"{self.path} must start with a header: {bad}") from None
        repeated = {name for name in header if name and header.count(name) > 1}
        if repeated:
            raise InputError(
                f"{self.path} must start with a header of different column names, got {header}"
            )
        return header

    def _has_row_names(self, header: list[str]) -> bool:
        """Whether rows begin with a name that has no field in `header`, as R writes them.

        Two rows must have the field more: a single one may only be broken, by a comma that is not
        quoted, and would shift all others.
        """
        if not self._starts:
            return False
        found: list[list[str]] = []
        with self._file.open() as raw:  # again, because the rows that are read may be only one
            raw.seek(self._starts[0])
            records = _Records(raw, self._separator)
            for _ in range(2):
                with contextlib.suppress(BadRowError):
                    found.append(records.next_record() or [])
        lengths = {len(record) for record in found if record}
        return lengths == {len(header) + 1} and found[0][-1] != ""

    def _record(self, records: _Records) -> Record:
        try:
            record = records.next_record() or []
            if len(record) != len(self.header):
                got = f"got {len(record)}"
                raise BadRowError(f"must have {len(self.header)} fields like the header, {got}")
        except BadRowError as bad:
            return Record({}, bad, records.text)
        return Record(dict(zip(self.header, record, strict=True)))


def _separator(file: TextFile) -> str:
    """The separator: what a `sep=` line names, or a comma if the first line has one.

    Otherwise the one that the first line has most of.
    """
    with file.open() as raw:
        line = io.BufferedReader(raw, _BUFFER_BYTES).readline(_BUFFER_BYTES)
    text = line.removeprefix(_BOM).decode(errors="replace").strip("\r\n")
    if text.startswith(_SEPARATOR_LINE) and len(text) == len(_SEPARATOR_LINE) + 1:
        return text[-1]
    return "," if "," in text else max(_SEPARATORS, key=text.count)


def _named(header: list[str]) -> list[str]:
    """`header` with pandas' names for columns without one: "Unnamed: 0", counted from 0."""
    names = list(header)
    for place, name in enumerate(header):
        if not name:
            named = f"Unnamed: {place}"
            repeats = 0
            while named in names:
                repeats += 1
                named = f"Unnamed: {place}.{repeats}"
            names[place] = named
    return names


class _Records:
    """CSV records from the current position of a file on.

    `start`, `line` and `text` describe the last record read, broken or not: its byte offset, line
    number and bytes. Lines count from where reading began.
    """

    def __init__(self, file: pa.NativeFile, separator: str) -> None:
        self.start = self._next_start = file.tell()
        self.line = self._next_line = 1
        self.text = b""
        self.digest = hashlib.blake2b(digest_size=16)
        self._not_utf8 = ""
        self._file = io.BufferedReader(file, _BUFFER_BYTES)
        self._reader = csv.reader(self._decoded_lines(), delimiter=separator, strict=True)

    def next_record(self) -> list[str] | None:
        """The fields of the next record that is not a blank line; None at the end.

        Raises:
            BadRowError: broken quoting or wrong UTF-8. The next call goes on after it.
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
