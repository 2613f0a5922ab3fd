"""What a file format gives: rows by position, as values to read and as columns that only travel.

A column that nobody reads stays Arrow from the file to the output row. As Python objects it would
lose what Python lacks, such as dates after the year 9999. Knows nothing about prompts and ids.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from dynts_batch.errors import BadRowError


@dataclass(frozen=True, slots=True)
class RawRow:
    """The values read of one row, as JSON data by column, or the error that decoding it gave."""

    values: Mapping[str, Any]
    error: BadRowError | None = None
    text: bytes = b""
    """The undecoded row, if there is an error."""
    chat_template_kwargs: Mapping[str, Any] | None = None
    """The variables that the row itself gives to the chat template."""


@dataclass(frozen=True, slots=True)
class Block:
    """Some rows in order, twice: as values and as columns."""

    rows: Sequence[RawRow]
    columns: pa.RecordBatch
    """All columns of the table, in its schema; null if a row could not be decoded."""


class Table(Protocol):
    """Rows of one data set, by position."""

    path: str
    schema: pa.Schema
    num_rows: int
    pads_objects: bool
    """Whether objects also have the keys of other rows' objects, with the value null."""

    def read(self, start: int, stop: int, names: Sequence[str]) -> Iterator[RawRow]:
        """Rows start..stop-1 in order. Only the columns `names` are read."""

    def blocks(self, start: int, stop: int, names: Sequence[str]) -> Iterator[Block]:
        """The same rows, with all their columns. Ascending calls are cheap."""

    def place(self, index: int) -> str:
        """The place of row `index` in words for a user: "row 3", "line 4"."""

    def fingerprint(self) -> str:
        """Hash of the content."""
