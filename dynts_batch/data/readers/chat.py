"""A cell with a chat, as the turns that a chat template takes: text, and tool calls as they are.

Knows nothing about columns and templates.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from typing import Any

from dynts_batch.errors import BadRowError

#: The kinds of content parts that hold text, in OpenAI's APIs and their imitations.
_TEXT_PARTS = ("text", "input_text", "output_text", None)


def turns_of(value: Any, *, are_padded: bool = False) -> list[dict[str, Any]] | None:
    """The turns of a chat, or None if `value` is none.

    `are_padded`: each object also has the keys of other rows' objects, with the value null.

    Raises: BadRowError if a turn has content other than text.
    """
    if isinstance(value, str):  # CSV and many Parquet files carry chats as JSON text
        with contextlib.suppress(ValueError, RecursionError):
            value, are_padded = json.loads(value), False
    if not isinstance(value, list) or not value:
        return None
    turns = [_turn(item, are_padded=are_padded) for item in value]
    return None if None in turns else [turn for turn in turns if turn is not None]


def _turn(value: Any, *, are_padded: bool) -> dict[str, Any] | None:
    if isinstance(value, list):  # a map, which Arrow writers use if keys vary
        with contextlib.suppress(TypeError, ValueError):
            value = dict(value)
    if not isinstance(value, dict) or not is_unicode(value.get("role")):
        return None
    value = {key: item for key, item in value.items() if item is not None}
    if are_padded:
        value = _without_padding(value)
    content = _text(value.get("content"))
    if value["role"] == "assistant" and (calls := value.get("tool_calls")):
        value["tool_calls"] = _tool_calls(calls)
        content = content or ""
    elif value["role"] == "assistant" and value.get("function_call"):
        content = content or ""
    return value | {"content": content} if is_unicode(content) else None


def _text(content: Any) -> Any:
    """The joined text of a list of parts; anything else as it is."""
    if not isinstance(content, list):
        return content
    return "".join(map(_part_text, content))


def _part_text(part: Any) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, Mapping) and part.get("type") in _TEXT_PARTS:
        text = part.get("text")
        if isinstance(text, str):
            return text
    raise BadRowError(f"content must be text, got the part {short(part)}")


def _tool_calls(calls: Any) -> Any:
    """Tool calls with their arguments as objects.

    The API has arguments as JSON text, which templates would quote once more.
    """
    if not isinstance(calls, list):
        return calls
    return [_tool_call(call) if isinstance(call, dict) else call for call in calls]


def _tool_call(call: dict[str, Any]) -> dict[str, Any]:
    function = call.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("arguments"), str):
        return call
    try:
        arguments = json.loads(function["arguments"])
    except (ValueError, RecursionError):
        return call
    return call | {"function": function | {"arguments": arguments}}


def _without_padding(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_padding(item) for k, item in value.items() if item is not None}
    return [_without_padding(item) for item in value] if isinstance(value, list) else value


def is_unicode(value: Any) -> bool:
    """Whether `value` is text that UTF-8 can hold. A JSON escape can spell half a surrogate."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def short(value: Any) -> str:
    """`value` for a message."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
