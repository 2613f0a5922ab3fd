"""Errors of reading, turned into one that names the file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa

from dynts_batch.errors import InputError


@contextmanager
def readable(path: str) -> Iterator[None]:
    """Turn pyarrow's and the system's errors into an InputError that names `path`."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(f"cannot read {path}: {reason}") from error
