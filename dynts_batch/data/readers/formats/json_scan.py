"""The values of a JSON document that is not JSON Lines, one by one.

They are the elements of an array, or values that follow each other. Reads a block at a time. Knows
nothing about what the values are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn

import pyarrow as pa

from dynts_batch.errors import InputError

_BLOCK_BYTES = 8 << 20
_MAX_BYTES = 1 << 28  # a quote that is never closed must not swallow all memory
_BETWEEN = re.compile(r"[ \t\r\n]*")
_BOM = "\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Element:
    start: int
    """The offset of its first byte."""
    line: int
    text: bytes


def elements(file: pa.NativeFile, path: str) -> Iterator[Element]:
    """The values in `file`, which is at its start.

    Raises: InputError if JSON breaks off, with the line and the reason.
    """
    return _Scanner(file, path).elements()


class _Scanner:
    """Decodes each byte as one character, so that offsets are the file's.

    This is safe because the signs of JSON are ASCII.
    """

    def __init__(self, file: pa.NativeFile, path: str) -> None:
        self._file, self._path = file, path
        self._decode = json.JSONDecoder().raw_decode
        self._text, self._at = "", 0
        self._offset = 0  # the file's offset of the first character of _text
        self._line, self._counted = 1, 0  # the line at character _counted of _text
        self._has_ended = False

    def elements(self) -> Iterator[Element]:
        if self._peek() == _BOM[0]:
            self._at += len(_BOM)
        is_array = self._peek() == "["
        if is_array:
            self._at += 1
        while (character := self._peek()) and not (is_array and character == "]"):
            yield self._element()
            if self._peek() == ",":
                self._at += 1
            elif is_array and self._peek() != "]":
                self._refuse("an array must go on with a comma or end with ]")
        if is_array:
            self._end()

    def _end(self) -> None:
        if not self._peek():
            self._refuse("the array must end with ]: the file is cut short")
        self._at += 1
        if self._peek():
            self._refuse("nothing must follow an array")

    def _element(self) -> Element:
        while True:
            try:
                _, end = self._decode(self._text, self._at)
            except (ValueError, RecursionError) as error:
                if self._has_ended or len(self._text) - self._at > _MAX_BYTES:
                    self._refuse(str(error).partition(": line ")[0])
                self._read_on()
                continue
            if end < len(self._text) or self._has_ended:
                break
            self._read_on()  # a number may go on
        start, text = self._offset + self._at, self._text[self._at : end].encode("latin-1")
        line = self._line_here()
        self._at = end
        return Element(start, line, text)

    def _line_here(self) -> int:
        self._line += self._text.count("\n", self._counted, self._at)
        self._counted = self._at
        return self._line

    def _peek(self) -> str:
        """The next character that is no white space; "" at the end."""
        while True:
            match = _BETWEEN.match(self._text, self._at)
            assert match is not None
            self._at = match.end()
            if self._at < len(self._text) or self._has_ended:
                return self._text[self._at : self._at + 1]
            self._read_on()

    def _read_on(self) -> None:
        """Drop what is done, and read at least as much as is left.

        The doubling bounds how often a long value is decoded again.
        """
        self._line_here()
        self._offset += self._at
        rest = self._text[self._at :]
        more = self._file.read(max(_BLOCK_BYTES, len(rest)))
        self._has_ended = not more
        self._text, self._at, self._counted = rest + more.decode("latin-1"), 0, 0

    def _refuse(self, reason: str) -> NoReturn:
        raise InputError(
            f"{self._path} must be JSON, and is not from line {self._line_here()} on: {reason}"
        )
