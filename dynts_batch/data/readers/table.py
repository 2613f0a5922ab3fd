"""What a file format gives: rows by position, as values that are read and as columns that only travel.

A column that nobody reads stays Arrow from the file to the output row: as Python objects it would lose what Python
lacks, such as dates after the year 9999. Knows nothing about prompts and ids.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from dynts_batch.errors import BadRowError


@dataclass(frozen=True, slots=True)
class RawRow:
    """What is read of one row: JSON data by column, or the error that kept it from being decoded."""

    values: Mapping[str, Any]
    error: BadRowError | None = None
    text: bytes = b""
    """The undecoded row, if there is an error."""
    chat_template_kwargs: Mapping[str, Any] | None = None
    """What the row itself says to the chat template."""


@dataclass(frozen=True, slots=True)
class Block:
    """Some rows in order, twice."""

    rows: Sequence[RawRow]
    columns: pa.RecordBatch
    """All columns of the table, in its schema; null where a row could not be decoded."""


class Table(Protocol):
    """Rows of one data set, by position."""

    path: str
    schema: pa.Schema
    num_rows: int
    pads_objects: bool
    """Whether objects come with all keys that those of other rows have, null if their own row has none."""

    def read(self, start: int, stop: int, names: Sequence[str]) -> Iterator[RawRow]:
        """Rows start..stop-1 in order, of which the columns `names` are read."""

    def blocks(self, start: int, stop: int, names: Sequence[str]) -> Iterator[Block]:
        """The same rows, and all their columns. Ascending calls are cheap."""

    def place(self, index: int) -> str:
        """Where a user finds row `index`: "row 3", "line 4"."""

    def fingerprint(self) -> str:
        """Hash of the content."""
