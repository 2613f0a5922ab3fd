"""OpenAI's batch API lines as a Table of requests.

    {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {"messages": [...]}}

A line may ask for what this run does not do: tools, another temperature than the run's. It becomes
an error row that says so, because nothing is dropped in silence. Knows nothing about files or
engines.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa

from dynts_batch.config import SamplingConfig
from dynts_batch.data.readers.chat import short
from dynts_batch.data.readers.formats.jsonl import JsonlTable
from dynts_batch.data.readers.formats.openai_parameters import check_parameter
from dynts_batch.data.readers.formats.text_file import TextFile
from dynts_batch.data.readers.table import Block, RawRow
from dynts_batch.errors import BadRowError

ID_COLUMN = "custom_id"
MESSAGES_COLUMN = "messages"
#: The end of a URL's path, whatever server or version stands before it.
_ENDPOINT = "chat/completions"
#: A line's variables for the chat template, and the one of them that OpenAI's API names itself.
_CHAT_KWARGS, _REASONING_EFFORT = "chat_template_kwargs", "reasoning_effort"
#: vLLM's way to ask for a continued last turn of the assistant, which is done anyway.
_CONTINUED = {"add_generation_prompt": False, "continue_final_message": True}


class OpenaiTable:
    """Files of batch requests (table.Table). Blank lines are no rows."""

    schema = pa.schema([(ID_COLUMN, pa.string()), (MESSAGES_COLUMN, pa.string())])
    pads_objects = False

    def __init__(
        self, files: Sequence[TextFile], path: str, limit: int | None, sampling: SamplingConfig
    ) -> None:
        """`sampling` is the run's. Every line must agree with it."""
        self._lines = JsonlTable(files, path, limit)
        self._sampling = sampling
        self.path = path
        self.num_rows = self._lines.num_rows

    def read(self, start: int, stop: int, names: Sequence[str]) -> Iterator[RawRow]:
        for index, line in enumerate(self._lines.read(start, stop, []), start):
            yield line if line.error is not None else self._raw_row(index, line.values)

    def blocks(self, start: int, stop: int, names: Sequence[str]) -> Iterator[Block]:
        rows = list(self.read(start, stop, names))
        ids = [row.values.get(ID_COLUMN) for row in rows]
        texts = [_json_text(row.values.get(MESSAGES_COLUMN)) for row in rows]
        columns = [pa.array(values, pa.string()) for values in (ids, texts)]
        yield Block(rows, pa.RecordBatch.from_arrays(columns, schema=self.schema))

    def place(self, index: int) -> str:
        return self._lines.place(index)

    def fingerprint(self) -> str:
        return self._lines.fingerprint()

    def _raw_row(self, index: int, line: Mapping[str, Any]) -> RawRow:
        id_ = line.get(ID_COLUMN)
        if not isinstance(id_, str) or not id_:
            bad = f"{self.place(index)}: custom_id must be non-empty text, got {short(id_)}"
            return RawRow({}, BadRowError(bad), json.dumps(line).encode())
        try:
            messages, settings = self._messages(line), _chat_template_kwargs(line["body"])
        except BadRowError as bad:
            error = BadRowError(f"{self.place(index)}: {bad}")
            # The row keeps its id, by which its owner finds the line again.
            return RawRow({ID_COLUMN: id_}, error)
        values = {ID_COLUMN: id_, MESSAGES_COLUMN: messages}
        return RawRow(values, chat_template_kwargs=settings)

    def _messages(self, line: Mapping[str, Any]) -> list[Any]:
        _check_url(line.get("url"))
        body = line.get("body")
        if not isinstance(body, dict) or not isinstance(body.get("messages"), list):
            raise BadRowError("body must be an object with a list of messages")
        for key, value in body.items():
            is_chats = key in (_CHAT_KWARGS, _REASONING_EFFORT)
            if not is_chats and not (key in _CONTINUED and _is_continued(body)):
                check_parameter(key, value, self._sampling)
        return body["messages"]


def _check_url(url: Any) -> None:
    """Raises: BadRowError unless `url` is absent or means chat completions."""
    if url is None:
        return
    path = urlsplit(url).path if isinstance(url, str) else ""
    if path.strip("/") != _ENDPOINT and not path.rstrip("/").endswith(f"/{_ENDPOINT}"):
        raise BadRowError(f"url must be /v1/{_ENDPOINT}, got {short(url)}")


def _json_text(value: Any) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False)


def _chat_template_kwargs(body: Mapping[str, Any]) -> dict[str, Any] | None:
    settings = body.get(_CHAT_KWARGS) or {}
    if not isinstance(settings, dict):
        raise BadRowError(f"body.{_CHAT_KWARGS} must be an object, got {short(settings)}")
    if body.get(_REASONING_EFFORT) is not None:
        settings = {_REASONING_EFFORT: body[_REASONING_EFFORT], **settings}
    return settings or None


def _is_continued(body: Mapping[str, Any]) -> bool:
    """Whether a line asks to continue its last turn, and that turn is the assistant's."""
    last = body["messages"][-1] if body["messages"] else None
    is_assistants = isinstance(last, dict) and last.get("role") == "assistant"
    return is_assistants and all(body.get(key) == value for key, value in _CONTINUED.items())
