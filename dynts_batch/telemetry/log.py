"""Structured logging: each record is one line of `key=value`, and few are written by default.

Code that knows a request passes it along: `logger.warning("...", extra={"request_id": ...})`. Every
`extra` becomes a key. Without `setup_logging` nothing is configured.
"""

from __future__ import annotations

import json
import logging
import sys
import time

_ROOT = "dynts_batch"
_STANDARD_KEYS = {*logging.makeLogRecord({}).__dict__, "message", "taskName"}


def setup_logging(level: str = "WARNING", *, worker_id: str | None = None) -> None:
    """Send this package's records from `level` up to stderr, marked with `worker_id` if given.

    Calling again replaces the former setting. Other packages' logging is left alone. ValueError if
    logging has no such `level`.
    """
    logger = logging.getLogger(_ROOT)
    logger.setLevel(level)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_KeyValueFormatter(worker_id))
    for former in logger.handlers[:]:
        logger.removeHandler(former)
    logger.addHandler(handler)
    logger.propagate = False  # or an application's root handler would print each line again


class _KeyValueFormatter(logging.Formatter):
    def __init__(self, worker_id: str | None) -> None:
        super().__init__()
        self._worker_id = worker_id

    def format(self, record: logging.LogRecord) -> str:
        now = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        fields: dict[str, object] = {
            "time": f"{now}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        if self._worker_id is not None:
            fields["worker_id"] = self._worker_id
        extra = {key: v for key, v in record.__dict__.items() if key not in _STANDARD_KEYS}
        # Ray, once imported, gives every record of the process a `_ray_timestamp_ns`.
        named = {key: v for key, v in extra.items() if not key.startswith("_")}
        fields |= {**named, "message": record.getMessage()}
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return " ".join(f"{key}={_quoted(str(value))}" for key, value in fields.items())


def _quoted(text: str) -> str:
    """`text` if it is one plain word, else a JSON string. Never more than one line."""
    plain = text and text.isprintable() and not set(text) & set(' "=')
    return text if plain else json.dumps(text, ensure_ascii=False)
