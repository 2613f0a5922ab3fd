"""This package's warnings in this process, kept for a reader on another machine."""

from __future__ import annotations

import logging

_ROOT = "dynts_batch"
_MAX_CHARS = 300


class WarningLog(logging.Handler):
    """Keeps the first warning of each kind until it is closed.

    A kind is a line of code. There are few kinds, however many rows fail or requests repeat.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._known: set[str] = set()
        self._new: dict[str, str] = {}
        logging.getLogger(_ROOT).addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        kind = f"{record.name}: {record.msg}"
        if kind not in self._known:
            self._known.add(kind)
            text = " ".join(record.getMessage().split())
            self._new[kind] = text if len(text) <= _MAX_CHARS else f"{text[:_MAX_CHARS]}..."

    def take(self) -> dict[str, str]:
        """The text of each kind that is new since the last call."""
        new, self._new = self._new, {}
        return new

    def close(self) -> None:
        logging.getLogger(_ROOT).removeHandler(self)
        super().close()
