"""The right answer that a data set holds, as the text that an answer is compared with."""

from __future__ import annotations

import json
from typing import Any


def reference_text(value: Any) -> str | None:
    """A cell of the reference column as text."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, default=str)
