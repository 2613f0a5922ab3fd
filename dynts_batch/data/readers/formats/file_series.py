"""Several files of rows, read as one. Knows nothing about formats."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Generic, Protocol, TypeVar

Row = TypeVar("Row", covariant=True)


class RowFile(Protocol[Row]):
    """One file whose rows can be read by position."""

    path: str
    num_rows: int
    digest: str

    def rows(self, start: int, stop: int) -> Iterator[Row]: ...

    def place(self, index: int) -> str: ...


class FileSeries(Generic[Row]):
    """Files in order. Row numbers count through all of them."""

    def __init__(self, files: Sequence[RowFile[Row]]) -> None:
        self._files = files
        self._ends = list(accumulate(file.num_rows for file in files))
        self.num_rows = self._ends[-1] if files else 0

    @property
    def digest(self) -> str:
        """Hash of the content. A single file keeps its own."""
        if len(self._files) == 1:
            return self._files[0].digest
        text = " ".join(file.digest for file in self._files)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def rows(self, start: int, stop: int) -> Iterator[Row]:
        while start < stop:
            file, first = self._file_of(start)
            end = min(stop, first + file.num_rows)
            yield from file.rows(start - first, end - first)
            start = end

    def place(self, index: int) -> str:
        file, first = self._file_of(index)
        where = file.place(index - first)
        return where if len(self._files) == 1 else f"{where} of {file.path}"

    def _file_of(self, row: int) -> tuple[RowFile[Row], int]:
        """The file that holds `row`, and its first row."""
        number = bisect_right(self._ends, row)
        return self._files[number], [0, *self._ends][number]
