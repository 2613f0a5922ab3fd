"""Where each row of a JSON file stands.

Rows are lines, the elements of an array, or values one after the other. Knows nothing about what
they hold.
"""

from __future__ import annotations

import hashlib
import io
import json
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator

import pyarrow as pa

from dynts_batch.data.readers.formats.json_scan import elements
from dynts_batch.data.readers.formats.text_file import TextFile
from dynts_batch.errors import InputError

BOM = b"\xef\xbb\xbf"
_READ_BYTES = 8 << 20

Observe = Callable[["JsonFile", int, bytes], None]
"""A function that is told the file, number and bytes of each row as it is found."""


class JsonFile:
    """An index of 16 bytes a row, and a hash of what was read."""

    def __init__(self, file: TextFile, limit: int | None, observe: Observe) -> None:
        """Index the first `limit` rows (None: all).

        Raises: InputError if it begins as an array, or as a value over several lines, and breaks
            off.
        """
        self.path = file.path
        self._file = file
        self._starts, self._ends = array("Q"), array("Q")  # byte offsets of every row
        self._blanks = array("Q")  # for every blank line, the number of rows before it
        self._lines: array[int] | None = None  # the line of every row, if rows are not lines
        digest = hashlib.blake2b(digest_size=16)
        are_lines = _has_lines(file)
        with file.open() as raw:
            if are_lines:
                self._index_lines(raw, limit, observe, digest)
            else:
                self._index_elements(raw, limit, observe, digest)
        self.digest = digest.hexdigest()
        self.num_rows = len(self._starts)

    def rows(self, start: int, stop: int) -> Iterator[bytes]:
        """The bytes of rows start..stop-1."""
        with self._file.open() as file:
            while start < stop:
                # Read as many whole rows at once as fit one block, at least one.
                offset = self._starts[start]
                end = bisect_right(self._ends, offset + _READ_BYTES, lo=start + 1)
                end = min(end, stop)
                block = file.read_at(self._ends[end - 1] - offset, offset)
                for index in range(start, end):
                    yield block[self._starts[index] - offset : self._ends[index] - offset]
                start = end

    def place(self, index: int) -> str:
        """The place of the row in words for a user."""
        if self._lines is not None:
            return f"element {index + 1} in line {self._lines[index]}"
        return f"line {index + 1 + bisect_right(self._blanks, index)}"

    def _index_lines(
        self, raw: pa.NativeFile, limit: int | None, observe: Observe, digest: hashlib.blake2b
    ) -> None:
        offset = 0
        for line in io.BufferedReader(raw, _READ_BYTES):
            if len(self._starts) == limit:
                break
            digest.update(line)
            if line.isspace():
                self._blanks.append(len(self._starts))
            else:
                self._starts.append(offset)
                self._ends.append(offset + len(line))
                observe(self, len(self._starts) - 1, line)
            offset += len(line)

    def _index_elements(
        self, raw: pa.NativeFile, limit: int | None, observe: Observe, digest: hashlib.blake2b
    ) -> None:
        self._lines = array("Q")
        for element in elements(raw, self.path):
            if len(self._starts) == limit:
                break
            digest.update(element.text)
            self._starts.append(element.start)
            self._ends.append(element.start + len(element.text))
            self._lines.append(element.line)
            observe(self, len(self._starts) - 1, element.text)


def _has_lines(file: TextFile) -> bool:
    """Whether each line is a row.

    No if the first line is an array and nothing follows. No if it is no JSON by itself, but a JSON
    value begins there that goes on.
    """
    with file.open() as raw:
        lines = io.BufferedReader(raw, _READ_BYTES)
        texts = (line.removeprefix(BOM).strip() for line in _short_lines(lines))
        first = next(filter(None, texts), b"")
        has_more = any(not line.isspace() for line in _short_lines(lines))
    try:
        value = json.loads(first)
    except (ValueError, RecursionError):
        return not first.startswith((b"[", b"{")) or _ends_in(first, file)
    return has_more or not isinstance(value, list)


def _short_lines(lines: io.BufferedReader) -> Iterator[bytes]:
    """Lines, or parts of very long ones: a whole array may be one line."""
    while line := lines.readline(_READ_BYTES):
        yield line


def _ends_in(first: bytes, file: TextFile) -> bool:
    """Whether `first`, a line that is no JSON, stays none together with the lines after it."""
    if first.startswith(b"["):
        return False
    with file.open() as raw:
        try:
            element = next(elements(raw, file.path), None)
        except InputError:
            return True
    return element is None or len(element.text) <= len(first)
