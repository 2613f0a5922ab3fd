"""What the requests are: a stable id, a prompt or messages, and a reference for every source row.

Owns the meaning of the columns that the configuration names, the typed error of a row without a
usable prompt, and the check that ids are unique. Knows nothing about file formats: a Table does.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dynts_batch.config import InputConfig
from dynts_batch.data.readers.chat import read_chat
from dynts_batch.data.readers.reference import reference_text
from dynts_batch.data.readers.table import RawRow, Table
from dynts_batch.data.snapshot import Snapshot
from dynts_batch.errors import BadRowError, InputError, choices_hint
from dynts_batch.records import Request


@dataclass(frozen=True, slots=True)
class SourceRow:
    """One row of the data set, ready to become requests.

    Either `error` is set, or exactly one of `prompt` and `messages`.
    """

    index: int
    request_id: str
    columns: dict[str, Any]
    prompt: str | None = None
    messages: list[dict[str, str]] | None = None
    reference: str | None = None
    error: BadRowError | None = None

    def request(self, sample_index: int, *, trace: bool = False) -> Request:
        """Sample `sample_index` of this row; it has no prompt if the row has an error."""
        return Request(self.request_id, sample_index, self.prompt, self.messages, trace=trace)


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
        self._reference_column = config.reference_column
        self.num_rows = min(table.num_rows, config.limit or table.num_rows)
        if self.num_rows == 0:
            raise InputError(f"{table.path} holds no rows")
        self._check_columns()

    @property
    def schema(self) -> pa.Schema:
        """The source's own columns."""
        return self._table.schema

    @property
    def fingerprint(self) -> str:
        """Hash of the data set's content: the same bytes elsewhere have the same one.

        Says nothing about the columns named or the limit. May read the whole data set once.
        """
        return self._table.fingerprint()

    def rows(self, start: int, stop: int) -> Iterator[SourceRow]:
        """Rows start..stop-1. Ascending calls are cheap; going back may re-read a row group.

        Raises:
            InputError: the data set cannot be read any more, or has changed: at the end of these
                rows, so use none of them before.
        """
        for index, raw in enumerate(self._table.read(start, stop, None), start):
            yield self._source_row(index, raw)
        self._snapshot.check()

    def validate(self) -> None:
        """Read the id and prompt columns once: everything decodes and every id is unique.

        Memory is 8 bytes per row; the columns that only travel along are not read.

        Raises:
            InputError: unreadable data, an id that is null or no text or integer, or duplicate ids
                (with the first ones and both their positions).
        """
        if self._id_column is None:  # hashed ids include the position: they are unique
            for _ in self._key_values():
                pass
            return
        hashes = array("q", (hash(id_) for id_ in self._ids()))
        buffers = [None, pa.py_buffer(hashes)]
        counts = pc.value_counts(pa.Array.from_buffers(pa.int64(), len(hashes), buffers))
        repeated = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")
        if len(repeated):
            self._refuse_duplicates(set(repeated.to_pylist()))

    def _refuse_duplicates(self, hashes: set[int]) -> None:
        """Equal hashes only make ids suspect: compare the ids themselves, in a second pass."""
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
        columns = [name for name in names if name is not None]
        return self._table.read(0, self.num_rows, columns)

    def _source_row(self, index: int, raw: RawRow) -> SourceRow:
        id_ = self._request_id(index, raw)
        error, prompt, messages, reference = raw.error, None, None, None
        if error is None:
            try:
                prompt, messages = self._prompt(raw.values), self._messages(raw.values)
            except BadRowError as bad:
                error = BadRowError(f"{self._table.place(index)}: {bad}")
        if self._reference_column:
            reference = reference_text(raw.values.get(self._reference_column))
        return SourceRow(index, id_, raw.columns, prompt, messages, reference, error)

    def _request_id(self, index: int, raw: RawRow) -> str:
        if self._id_column is None or (raw.error is not None and not raw.values):
            return _hashed_id(index, self._payload(raw))
        id_ = raw.values.get(self._id_column)
        # bool is an int in Python, and 1.0 == 1: only exact types keep ids apart.
        if type(id_) is int or (type(id_) is str and id_):
            return str(id_)
        raise InputError(
            f"input.id_column {self._id_column!r} must hold non-empty text or integers, got {id_!r}"
            f" in {self._table.place(index)} of {self._table.path}"
        )

    def _payload(self, raw: RawRow) -> bytes:
        """What a hashed id identifies: the same prompt text has the same payload in every format."""
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
            got = "null" if prompt is None else _short(prompt)
            raise BadRowError(
                f"input.prompt_column {self._prompt_column!r} must hold text, got {got}"
            )
        # Not str.format: a template may hold LaTeX, and so braces of its own.
        return self._prompt_template.replace("{prompt}", prompt)

    def _messages(self, values: Mapping[str, Any]) -> list[dict[str, str]] | None:
        if self._messages_column is None:
            return None
        value = values.get(self._messages_column)
        chat = read_chat(value)
        if chat is None:
            raise BadRowError(
                f"input.messages_column {self._messages_column!r} must hold a list of"
                f" {{role, content}} with text in both, got {_short(value)}"
            )
        return chat

    def _check_columns(self) -> None:
        names = self._table.schema.names
        for key in ("id_column", "prompt_column", "messages_column", "reference_column"):
            column = getattr(self, f"_{key}")
            if column is not None and column not in names:
                raise InputError(
                    f"input.{key} {column!r} is not a column of {self._table.path}."
                    f" {choices_hint(column, names)}"
                )
        self._check_type("id_column", self._id_column, (_is_text, pa.types.is_integer))
        self._check_type("prompt_column", self._prompt_column, (_is_text,))
        self._check_type("messages_column", self._messages_column, (_is_text, _is_list))

    def _check_type(
        self, key: str, column: str | None, accepted: Sequence[Callable[[pa.DataType], bool]]
    ) -> None:
        if column is None:
            return
        type_ = self._table.schema.field(column).type
        if pa.types.is_dictionary(type_):
            type_ = type_.value_type
        if not any(accepts(type_) for accepts in accepted):
            words = {"id_column": "text or integers", "prompt_column": "text"}
            need = words.get(key, "lists of {role, content}")
            raise InputError(
                f"input.{key} {column!r} of {self._table.path} must hold {need}, got {type_}"
            )


def _hashed_id(index: int, payload: bytes) -> str:
    digest = hashlib.blake2b(payload, digest_size=12, salt=index.to_bytes(16, "little"))
    return digest.hexdigest()


def _is_text(type_: pa.DataType) -> bool:
    return pa.types.is_string(type_) or pa.types.is_large_string(type_)


def _is_list(type_: pa.DataType) -> bool:
    return pa.types.is_list(type_) or pa.types.is_large_list(type_)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
