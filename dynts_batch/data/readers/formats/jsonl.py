"""Rows of files of JSON objects, by position, through an index of byte offsets.

One pass over the files finds where rows start, the Arrow type of every key, and the content's hash.
A line that is no JSON object becomes a row with an error. Knows nothing about prompts and ids.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import pyarrow as pa

from dynts_batch.data.readers.chat import is_unicode
from dynts_batch.data.readers.formats.file_series import FileSeries
from dynts_batch.data.readers.formats.json_file import BOM, JsonFile
from dynts_batch.data.readers.formats.json_types import JsonType
from dynts_batch.data.readers.formats.text_file import TextFile
from dynts_batch.data.readers.table import Block, RawRow
from dynts_batch.data.readers.unreadable import readable
from dynts_batch.data.schema import JSON_TEXT
from dynts_batch.errors import BadRowError, InputError

_BLOCK_ROWS = 256
_MAX_COLUMNS = 1000  # more distinct keys than this are data, not column names


class JsonlTable:
    """Files of JSON Lines or arrays, as one table (table.Table). Blank lines are no rows."""

    pads_objects = False

    def __init__(self, files: Sequence[TextFile], path: str, limit: int | None) -> None:
        """Index the first `limit` rows (None: all).

        Raises: InputError if no row is a JSON object, or if a file breaks off.
        """
        self.path = path
        self._types: dict[str, JsonType] = {}
        self._first_bad: tuple[int, bytes] | None = None
        indexed: list[JsonFile] = []
        for file in files:
            done = sum(one.num_rows for one in indexed)
            left = None if limit is None else limit - done
            with readable(file.path):
                indexed.append(JsonFile(file, left, partial(self._observe, done)))
        self._files = FileSeries(indexed)
        self.num_rows = self._files.num_rows
        self.schema = self._infer_schema()
        if not self._types and self._first_bad is not None:
            error = self._raw_row(*self._first_bad).error
            raise InputError(f"{path} must hold JSON objects, got none: {error}")

    def read(self, start: int, stop: int, names: Sequence[str]) -> Iterator[RawRow]:
        with readable(self.path):
            for index, line in enumerate(self._files.rows(start, stop), start):
                yield self._raw_row(index, line)

    def blocks(self, start: int, stop: int, names: Sequence[str]) -> Iterator[Block]:
        for first in range(start, stop, _BLOCK_ROWS):
            rows = list(self.read(first, min(first + _BLOCK_ROWS, stop), names))
            encoded = [self._encoded(first + offset, row) for offset, row in enumerate(rows)]
            columns = [
                pa.array([values.get(field.name) for _, values in encoded], field.type)
                for field in self.schema
            ]
            batch = pa.RecordBatch.from_arrays(columns, schema=self.schema)
            yield Block([row for row, _ in encoded], batch)

    def place(self, index: int) -> str:
        return self._files.place(index)

    def fingerprint(self) -> str:
        return self._files.digest

    def _observe(self, first: int, file: JsonFile, index: int, line: bytes) -> None:
        try:
            values = parse_line(line)
        except BadRowError:  # read() reports it, as a row
            if self._first_bad is None:
                self._first_bad = first + index, line
            return
        for key, value in values.items():
            if key not in self._types:
                self._types[key] = JsonType()
            self._types[key].observe(value)
        if len(self._types) > _MAX_COLUMNS:
            raise InputError(
                f"{file.path} must have at most {_MAX_COLUMNS} different keys at the top level,"
                f" got more by {file.place(index)}"
            )

    def _infer_schema(self) -> pa.Schema:
        fields = []
        for name, column in self._types.items():
            type_ = column.arrow_type()
            metadata = None
            if type_ is None:
                note = f"Column {name!r} of the input, as JSON text: mixed types"
                metadata = {b"description": note.encode(), JSON_TEXT: b"yes"}
            fields.append(pa.field(name, type_ or pa.string(), metadata=metadata))
        return pa.schema(fields)

    def _raw_row(self, index: int, line: bytes) -> RawRow:
        try:
            return RawRow(parse_line(line))
        except BadRowError as bad:
            return RawRow({}, BadRowError(f"{self.place(index)}: {bad}"), line.strip())

    def _encoded(self, index: int, row: RawRow) -> tuple[RawRow, dict[str, Any]]:
        """A row and its columns. A value too deep to encode makes it an error row too."""
        try:
            return row, {
                field.name: _as_text(row.values[field.name])
                if field.metadata
                else row.values[field.name]
                for field in self.schema
                if field.name in row.values
            }
        except RecursionError as error:
            return RawRow({}, BadRowError(f"{self.place(index)}: {error}")), {}


def parse_line(line: bytes) -> dict[str, Any]:
    """The JSON object on one line.

    Raises:
        BadRowError: wrong UTF-8, broken JSON, not an object, or text that is not Unicode.
    """
    try:
        values = json.loads(line.removeprefix(BOM).decode())
        is_text = b"\\u" not in line or is_unicode(json.dumps(values, ensure_ascii=False))
    except UnicodeDecodeError as error:
        raise BadRowError(f"must be UTF-8, got byte {error.object[error.start]:#04x}") from None
    except (ValueError, RecursionError) as error:
        raise BadRowError(f"must be JSON: {error}") from None
    if not isinstance(values, dict):
        raise BadRowError(f"must be a JSON object, got {type(values).__name__}")
    if not is_text:
        raise BadRowError("must hold Unicode text, got half of a surrogate pair (\\ud800..\\udfff)")
    return values


def _as_text(value: Any) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False)
