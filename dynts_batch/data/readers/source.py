"""What the requests are: a stable id, a prompt or messages, and a reference for every source row.

Owns the meaning of the columns that the configuration names, and the typed error of a row without a
usable prompt. Also checks the whole: ids are unique, and some row can be run. A Table knows the
file formats.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dynts_batch.config import InputConfig
from dynts_batch.data.readers.chat import short, turns_of
from dynts_batch.data.readers.named_columns import check_columns
from dynts_batch.data.readers.reference import reference_text
from dynts_batch.data.readers.table import RawRow, Table
from dynts_batch.data.snapshot import Snapshot
from dynts_batch.errors import BadRowError, InputError
from dynts_batch.records import Request

#: Roles of a turn that may stand before the chat.
_SYSTEM_ROLES = ("system", "developer")


@dataclass(frozen=True, slots=True)
class SourceRow:
    """One row of the data set, ready to become requests.

    Either `error` is set, or exactly one of `prompt` and `messages`.
    """

    index: int
    request_id: str
    prompt: str | None = None
    messages: list[dict[str, Any]] | None = None
    reference: str | None = None
    error: BadRowError | None = None
    chat_template_kwargs: Mapping[str, Any] | None = None

    def request(self, sample_index: int, *, trace: bool = False) -> Request:
        """Sample `sample_index` of this row. If the row has an error, it has no prompt."""
        return Request(
            self.request_id,
            sample_index,
            self.prompt,
            self.messages,
            trace=trace,
            chat_template_kwargs=self.chat_template_kwargs,
        )


@dataclass(frozen=True, slots=True)
class SourceRows:
    """Neighbouring rows, and all columns that the data set has for them."""

    rows: list[SourceRow]
    columns: pa.Table
    """One row per element of `rows`, in Source.schema. Columns that nobody reads only travel."""


class Source:
    """A data set opened for reading by position; see reader.open_source."""

    def __init__(self, table: Table, config: InputConfig, snapshot: Snapshot) -> None:
        """`snapshot` is of the files of `table`.

        Raises: InputError if the data set is empty or lacks a named column.
        """
        self._table, self._snapshot = table, snapshot
        self._id_column = config.id_column
        self._prompt_column = config.prompt_column
        self._prompt_template = config.prompt_template or "{prompt}"
        self._messages_column = config.messages_column
        self._system_prompt = config.system_prompt
        self._reference_column = config.reference_column
        named = (config.id_column, config.prompt_column, config.messages_column)
        read = dict.fromkeys((*named, config.reference_column))  # one may serve as two
        self._read_columns = [name for name in read if name is not None]
        self.num_rows = min(table.num_rows, config.limit or table.num_rows)
        if self.num_rows == 0:
            raise InputError(f"{table.path} holds no rows")
        check_columns(table, config)

    @property
    def schema(self) -> pa.Schema:
        """The source's own columns."""
        return self._table.schema

    @property
    def fingerprint(self) -> str:
        """Hash of the data set's content: the same bytes elsewhere have the same hash.

        It does not depend on the named columns or the limit. May read the whole data set once.
        """
        return self._table.fingerprint()

    def rows(self, start: int, stop: int) -> Iterator[SourceRow]:
        """Rows start..stop-1, without their columns.

        Raises:
            InputError: the data set cannot be read any more, or has changed. A change is raised
                only after the last row, so use no row before then.
        """
        for index, raw in enumerate(self._table.read(start, stop, self._read_columns), start):
            yield self._source_row(index, raw)
        self._snapshot.check()

    def read(self, start: int, stop: int) -> SourceRows:
        """Rows start..stop-1 and their columns.

        Ascending calls are cheap; going back may read a row group again.

        Raises: InputError if the data set cannot be read any more, or has changed.
        """
        rows: list[SourceRow] = []
        columns = []
        for block in self._table.blocks(start, stop, self._read_columns):
            for raw in block.rows:
                rows.append(self._source_row(start + len(rows), raw))
            columns.append(block.columns)
        self._snapshot.check()
        return SourceRows(rows, pa.Table.from_batches(columns, self.schema))

    def validate(self) -> None:
        """Read the ids and prompts once. All decode, ids are unique, and some row can be run.

        It takes 8 bytes of memory per row. Columns that only travel along are not read.

        Raises:
            InputError: unreadable data; an id that is neither text nor an integer; duplicate ids
                (with the first ones and both their positions); or no row that can be run.
        """
        rows = self._checked_rows()
        if self._id_column is None:  # hashed ids include the position, so they are unique
            for _ in rows:
                pass
            return
        hashes = array("q", (hash(self._request_id(index, raw)) for index, raw in enumerate(rows)))
        buffers = [None, pa.py_buffer(hashes)]
        counts = pc.value_counts(pa.Array.from_buffers(pa.int64(), len(hashes), buffers))
        repeated = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")
        if len(repeated):
            self._refuse_duplicates(set(repeated.to_pylist()))

    def _checked_rows(self) -> Iterator[RawRow]:
        """All rows, with the values that ids and prompts are made of.

        Raises: InputError at the end, if none can be run.
        """
        first: BadRowError | None = None
        num_errors, are_alike = 0, True
        for index, raw in enumerate(self._key_values()):
            if num_errors == index:  # no row so far can be run
                error = self._chat(index, raw)[2]
                if error is not None:
                    first = first or error
                    are_alike = are_alike and _reason(error) == _reason(first)
                    num_errors += 1
            yield raw
        if num_errors == self.num_rows:
            share = "each fails for the same reason" if are_alike else "the first"
            raise InputError(
                f"{self._table.path} must hold a row that can be run, "
                f"got {num_errors:,} that cannot; {share}: {first}"
            )

    def _refuse_duplicates(self, hashes: set[int]) -> None:
        """Raise if ids are equal. Equal hashes only make them suspect: a second pass compares."""
        first: dict[str, int] = {}
        found = []
        for index, id_ in enumerate(self._ids()):
            if hash(id_) not in hashes:
                continue
            if id_ in first:
                places = f"{self._table.place(first[id_])} and {self._table.place(index)}"
                found.append(f"{id_!r} in {places}")
            first.setdefault(id_, index)
            if len(found) == 3:
                break
        if found:
            raise InputError(
                f"input.id_column {self._id_column!r} must be unique, got {', '.join(found)}"
                f" of {self._table.path}"
            )

    def _ids(self) -> Iterator[str]:
        for index, raw in enumerate(self._key_values()):
            yield self._request_id(index, raw)

    def _key_values(self) -> Iterator[RawRow]:
        names = (self._id_column, self._prompt_column, self._messages_column)
        columns = [name for name in dict.fromkeys(names) if name is not None]
        return self._table.read(0, self.num_rows, columns)

    def _source_row(self, index: int, raw: RawRow) -> SourceRow:
        id_ = self._request_id(index, raw)
        prompt, messages, error = self._chat(index, raw)
        reference = None
        if self._reference_column:
            reference = reference_text(raw.values.get(self._reference_column))
        settings = raw.chat_template_kwargs
        return SourceRow(index, id_, prompt, messages, reference, error, settings)

    def _chat(
        self, index: int, raw: RawRow
    ) -> tuple[str | None, list[dict[str, Any]] | None, BadRowError | None]:
        """The prompt or the messages of a row, or the error that it has instead."""
        if raw.error is not None:
            return None, None, raw.error
        try:
            chat = self._under_system(self._prompt(raw.values), self._messages(raw.values))
            return *chat, None
        except BadRowError as bad:
            return None, None, BadRowError(f"{self._table.place(index)}: {bad}")

    def _under_system(
        self, prompt: str | None, messages: list[dict[str, Any]] | None
    ) -> tuple[str | None, list[dict[str, Any]] | None]:
        """Both under the system prompt, if there is one and the messages have none."""
        if self._system_prompt is None:
            return prompt, messages
        if messages is None:
            messages = [{"role": "user", "content": prompt}]
        if messages[0]["role"] not in _SYSTEM_ROLES:
            messages = [{"role": "system", "content": self._system_prompt}, *messages]
        return None, messages

    def _request_id(self, index: int, raw: RawRow) -> str:
        if self._id_column is None or (raw.error is not None and not raw.values):
            return _hashed_id(index, self._payload(raw))
        id_ = raw.values.get(self._id_column)
        # bool is an int in Python, and 1.0 == 1. So only exact types keep ids apart.
        if type(id_) is int or (type(id_) is str and id_):
            return str(id_)
        raise InputError(
            f"input.id_column {self._id_column!r} must hold non-empty text or integers, got {id_!r}"
            f" in {self._table.place(index)} of {self._table.path}"
        )

    def _payload(self, raw: RawRow) -> bytes:
        """The bytes that a hashed id identifies. A prompt text has the same in every format."""
        if raw.error is not None:
            return raw.text
        value = raw.values.get(self._prompt_column or self._messages_column or "")
        if isinstance(value, str):
            return value.encode()
        return json.dumps(value, sort_keys=True, default=str).encode()

    def _prompt(self, values: Mapping[str, Any]) -> str | None:
        if self._prompt_column is None:
            return None
        prompt = values.get(self._prompt_column)
        if not isinstance(prompt, str) or not prompt.strip():
            got = "null" if prompt is None else short(prompt)
            raise BadRowError(
                f"input.prompt_column {self._prompt_column!r} must hold text, got {got}"
            )
        # Not str.format: a template may hold LaTeX, and so other braces.
        return self._prompt_template.replace("{prompt}", prompt)

    def _messages(self, values: Mapping[str, Any]) -> list[dict[str, Any]] | None:
        if self._messages_column is None:
            return None
        value = values.get(self._messages_column)
        turns = turns_of(value, are_padded=self._table.pads_objects)
        if turns is None:
            raise BadRowError(
                f"input.messages_column {self._messages_column!r} must hold a list of"
                f" {{role, content}} with text in both, got {short(value)}"
            )
        return turns


def _reason(error: BadRowError) -> str:
    """The message without the place."""
    return str(error).partition(": ")[2]


def _hashed_id(index: int, payload: bytes) -> str:
    digest = hashlib.blake2b(payload, digest_size=12, salt=index.to_bytes(16, "little"))
    return digest.hexdigest()
