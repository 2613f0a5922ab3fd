"""OpenAI's batch API lines: requests as a Table, and answered rows as its response lines.

    {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {"messages": [...]}}
    {"id": "...", "custom_id": "a", "response": {"status_code": 200, "body": {...}}, "error": null}

A line that asks for what this run does not do (tools, another temperature than the run's) becomes an
error row that says so: nothing is dropped in silence. Knows nothing about files or engines.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
from pyarrow import fs as pafs

from dynts_batch.config import SamplingConfig
from dynts_batch.data.readers.jsonl import JsonlTable
from dynts_batch.data.readers.table import RawRow
from dynts_batch.errors import BadRowError

ID_COLUMN = "custom_id"
MESSAGES_COLUMN = "messages"
_URL = "/v1/chat/completions"
#: Parameters of a body that must be the run's, and the run's key for each.
_SAMPLING = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "max_tokens": "max_new_tokens",
    "max_completion_tokens": "max_new_tokens",
    "n": "num_samples",
    "seed": "seed",
}
#: Those that change no token. `model` is here too: the run's model answers, whatever a line names.
_WITHOUT_EFFECT = {"messages", "model", "user", "metadata", "store", "service_tier"}
#: Values that ask for nothing.
_NEUTRAL: tuple[Any, ...] = (None, False, 0, [], {}, {"type": "text"})


class OpenaiTable:
    """One file of batch requests (source.Table). Blank lines are no rows."""

    schema = pa.schema([(ID_COLUMN, pa.string()), (MESSAGES_COLUMN, pa.string())])

    def __init__(
        self, filesystem: pafs.FileSystem, path: str, limit: int | None, sampling: SamplingConfig
    ) -> None:
        """`sampling` is the run's, which every line must agree with."""
        self._lines = JsonlTable(filesystem, path, limit)
        self._sampling = sampling
        self.path = path
        self.num_rows = self._lines.num_rows

    def read(self, start: int, stop: int, names: Sequence[str] | None) -> Iterator[RawRow]:
        for index, line in enumerate(self._lines.read(start, stop, []), start):
            yield line if line.error is not None else self._raw_row(index, line.values)

    def place(self, index: int) -> str:
        return self._lines.place(index)

    def fingerprint(self) -> str:
        return self._lines.fingerprint()

    def _raw_row(self, index: int, line: Mapping[str, Any]) -> RawRow:
        id_ = line.get(ID_COLUMN)
        if not isinstance(id_, str) or not id_:
            bad = f"{self.place(index)}: custom_id must be non-empty text, got {_short(id_)}"
            return RawRow({}, {}, BadRowError(bad), json.dumps(line).encode())
        try:
            messages = self._messages(line)
        except BadRowError as bad:
            error = BadRowError(f"{self.place(index)}: {bad}")
            # It keeps its id: that is how its owner finds the line again.
            return RawRow({ID_COLUMN: id_}, {ID_COLUMN: id_}, error)
        text_messages = json.dumps(messages, ensure_ascii=False)
        return RawRow(
            {ID_COLUMN: id_, MESSAGES_COLUMN: messages},
            {ID_COLUMN: id_, MESSAGES_COLUMN: text_messages},
        )

    def _messages(self, line: Mapping[str, Any]) -> list[Any]:
        if line.get("url", _URL) != _URL:
            raise BadRowError(f"url must be {_URL}, got {line['url']!r}")
        body = line.get("body")
        if not isinstance(body, dict) or not isinstance(body.get("messages"), list):
            raise BadRowError("body must be an object with a list of messages")
        for key, value in body.items():
            self._check_parameter(key, value)
        return [_with_text(message) for message in body["messages"]]

    def _check_parameter(self, key: str, value: Any) -> None:
        if key in _SAMPLING and value is not None:
            ours = getattr(self._sampling, _SAMPLING[key])
            if value != ours:
                raise BadRowError(
                    f"body.{key} must be the run's sampling.{_SAMPLING[key]} ({ours}), got {value!r}"
                )
        elif key not in _WITHOUT_EFFECT and key not in _SAMPLING and value not in _NEUTRAL:
            raise BadRowError(f"body.{key} is not supported, got {_short(value)}")


def response_line(rows: Sequence[Mapping[str, Any]], model: str) -> dict[str, Any]:
    """The response to one request: `rows` are its samples, in order, as in the output schema."""
    id_ = str(rows[0]["request_id"])
    digest = hashlib.blake2b(id_.encode(), digest_size=12).hexdigest()
    failed = [row for row in rows if row["finish_reason"] == "error"]
    answered = [row for row in rows if row["finish_reason"] != "error"]
    error = None
    if failed:
        error = {"code": failed[0]["error_type"], "message": failed[0]["error_message"]}
    body = {
        "id": f"chatcmpl-{digest}",
        "object": "chat.completion",
        "model": model,
        "choices": [_choice(row) for row in answered],
        "usage": _usage(answered),
    }
    return {
        "id": f"batch_req_{digest}",
        "custom_id": id_,
        "response": {"status_code": 200, "request_id": digest, "body": body} if answered else None,
        "error": error,
    }


def _choice(row: Mapping[str, Any]) -> dict[str, Any]:
    message = {
        "role": "assistant",
        "content": row["answer"],
        "reasoning_content": row["reasoning"],
    }
    index, reason = row["sample_index"], row["finish_reason"]
    reason = (
        "length" if reason == "loop" else reason
    )  # the client knows no other end of an unfinished text
    return {"index": index, "message": message, "finish_reason": reason}


def _usage(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    prompt = rows[0]["prompt_tokens"] if rows else 0
    completion = sum(row["completion_tokens"] for row in rows)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "completion_tokens_details": {
            "reasoning_tokens": sum(row["reasoning_tokens"] for row in rows)
        },
    }


def _with_text(message: Any) -> Any:
    """A message whose content is a list of text parts, with their text instead."""
    if not isinstance(message, dict) or not isinstance(message.get("content"), list):
        return message
    texts = []
    for part in message["content"]:
        if not isinstance(part, dict) or part.get("type") != "text":
            raise BadRowError(f"content must be text, got the part {_short(part)}")
        texts.append(str(part.get("text")))
    return message | {"content": "".join(texts)}


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
