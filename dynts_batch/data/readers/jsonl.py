"""Rows of a JSON Lines file, by position, through an index of byte offsets.

One pass over the file finds where rows start, the Arrow type of every key, and the content's hash.
A line that is no JSON object becomes a row with an error. Knows nothing about prompts and ids.
"""

from __future__ import annotations

import hashlib
import io
import json
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
from pyarrow import fs as pafs

from dynts_batch.data.readers.columnar import readable
from dynts_batch.data.readers.json_types import JsonType
from dynts_batch.data.readers.table import RawRow
from dynts_batch.errors import BadRowError, InputError

_READ_BYTES = 8 << 20
_BOM = b"\xef\xbb\xbf"
_MAX_COLUMNS = 1000  # more distinct keys than this are data, not column names


class JsonlTable:
    """One JSON Lines file (source.Table). Blank lines are no rows."""

    def __init__(self, filesystem: pafs.FileSystem, path: str, limit: int | None) -> None:
        """Index the first `limit` rows (None: all)."""
        self.path = path
        self._fs = filesystem
        self._starts = array("Q")  # byte offset of every row, and of the end: 8 bytes per row
        self._blanks = array("Q")  # for every blank line, the number of rows before it
        self._json_columns: set[str] = set()
        with readable(path):
            self._digest, types = self._index(limit)
        self.num_rows = len(self._starts) - 1
        self.schema = self._infer_schema(types)

    def read(self, start: int, stop: int, names: Sequence[str] | None) -> Iterator[RawRow]:
        columns = self.schema.names if names is None else []
        with readable(self.path), self._fs.open_input_file(self.path) as file:
            while start < stop:
                # As many whole rows as fit one read, at least one.
                end = bisect_right(self._starts, self._starts[start] + _READ_BYTES) - 1
                end = min(max(end, start + 1), stop)
                offset = self._starts[start]
                block = file.read_at(self._starts[end] - offset, offset)
                for index in range(start, end):
                    line = block[self._starts[index] - offset : self._starts[index + 1] - offset]
                    yield self._raw_row(index, line, columns)
                start = end

    def place(self, index: int) -> str:
        return f"line {index + 1 + bisect_right(self._blanks, index)}"

    def fingerprint(self) -> str:
        return self._digest

    def _index(self, limit: int | None) -> tuple[str, dict[str, JsonType]]:
        digest = hashlib.blake2b(digest_size=16)
        types: dict[str, JsonType] = {}
        offset = 0
        with self._fs.open_input_file(self.path) as raw:
            for line in io.BufferedReader(raw, _READ_BYTES):
                if len(self._starts) == limit:
                    break
                digest.update(line)
                if line.isspace():
                    self._blanks.append(len(self._starts))
                else:
                    self._starts.append(offset)
                    self._observe(line, types)
                offset += len(line)
        self._starts.append(offset)
        return digest.hexdigest(), types

    def _observe(self, line: bytes, types: dict[str, JsonType]) -> None:
        try:
            values = parse_line(line)
        except BadRowError:
            return  # read() reports it, as a row
        for key, value in values.items():
            if key not in types:
                types[key] = JsonType()
            types[key].observe(value)
        if len(types) > _MAX_COLUMNS:
            raise InputError(
                f"{self.path} must have at most {_MAX_COLUMNS} different keys at the top level,"
                f" got more by {self.place(len(self._starts) - 1)}"
            )

    def _infer_schema(self, types: dict[str, JsonType]) -> pa.Schema:
        fields = []
        for name, column in types.items():
            type_ = column.arrow_type()
            if type_ is None:
                self._json_columns.add(name)
                note = {"description": f"Column {name!r} of the input, as JSON text: mixed types"}
                fields.append(pa.field(name, pa.string(), metadata=note))
            else:
                fields.append(pa.field(name, type_))
        return pa.schema(fields)

    def _raw_row(self, index: int, line: bytes, names: Sequence[str]) -> RawRow:
        try:
            values = parse_line(line)
            columns = {name: self._encode(name, values.get(name)) for name in names}
        except (BadRowError, RecursionError) as bad:  # so deep that only encoding it fails
            error = BadRowError(f"{self.place(index)}: {bad}")
            return RawRow({}, {}, error, line.strip())
        return RawRow(values, columns)

    def _encode(self, name: str, value: Any) -> Any:
        if value is None or name not in self._json_columns:
            return value
        return json.dumps(value, ensure_ascii=False)


def parse_line(line: bytes) -> dict[str, Any]:
    """The JSON object on one line.

    Raises:
        BadRowError: wrong UTF-8, broken JSON, not an object, or text that is not Unicode.
    """
    try:
        values = json.loads(line.removeprefix(_BOM).decode())
        is_unicode = b"\\u" not in line or _is_unicode(values)
    except UnicodeDecodeError as error:
        raise BadRowError(f"must be UTF-8, got byte {error.object[error.start]:#04x}") from None
    except (ValueError, RecursionError) as error:
        raise BadRowError(f"must be JSON: {error}") from None
    if not isinstance(values, dict):
        raise BadRowError(f"must be a JSON object, got {type(values).__name__}")
    if not is_unicode:
        raise BadRowError("must hold Unicode text, got half of a surrogate pair (\\ud800..\\udfff)")
    return values


def _is_unicode(value: Any) -> bool:
    """Whether UTF-8 can hold all text in `value`: JSON escapes can spell half a surrogate pair."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True
