"""What every file format gives: a table of raw rows, by position. Knows nothing about what their columns mean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from dynts_batch.errors import BadRowError


@dataclass(frozen=True, slots=True)
class RawRow:
    """One row as a Table reads it: decoded values, or the error that kept it from being decoded."""

    values: Mapping[str, Any]
    """As the file has them; prompt, messages, reference and id are taken from here."""
    columns: dict[str, Any]
    """As they are written to the output, fit for the Table's schema."""
    error: BadRowError | None = None
    text: bytes = b""
    """The undecoded row, if there is an error."""


class Table(Protocol):
    """Rows of one data set, by position."""

    path: str
    schema: pa.Schema
    num_rows: int

    def read(self, start: int, stop: int, names: Sequence[str] | None) -> Iterator[RawRow]:
        """Rows start..stop-1 in order: whole ones, or only `values`, of the columns `names`."""

    def place(self, index: int) -> str:
        """Where a user finds row `index`: "row 3", "line 4"."""

    def fingerprint(self) -> str:
        """Hash of the content."""
