"""The one message for a damaged Parquet file: it names the file and what deleting it costs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa

from dynts_batch.errors import RunDirError


@contextmanager
def damage_named(path: str, remedy: str = "compute it again") -> Iterator[None]:
    """A context manager for all reading of the file at `path`.

    Raises: RunDirError if it is damaged.
    """
    try:
        yield
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise RunDirError(f"{path} is damaged: {reason}. Delete it to {remedy}") from error
