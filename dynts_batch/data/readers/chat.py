"""A cell that holds a chat: a list of turns, each with role and content, or such a list as JSON text."""

from __future__ import annotations

import contextlib
import json
from typing import Any


def read_chat(value: Any) -> list[dict[str, str]] | None:
    """The turns, without keys that hold nothing; None where `value` is no chat."""
    if isinstance(value, str):  # CSV and many Parquet files carry chats as JSON text
        with contextlib.suppress(ValueError, RecursionError):
            value = json.loads(value)
    if not isinstance(value, list) or not value or not all(map(_is_turn, value)):
        return None
    # Arrow gives every message all keys that any message has: those it lacks are null.
    return [{k: v for k, v in message.items() if v is not None} for message in value]


def _is_turn(value: Any) -> bool:
    return isinstance(value, dict) and all(
        _is_unicode(value.get(key)) for key in ("role", "content")
    )


def _is_unicode(value: Any) -> bool:
    """Whether `value` is text that UTF-8 can hold: a JSON escape can spell half a surrogate."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
