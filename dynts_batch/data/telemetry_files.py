"""The telemetry in a run directory: parts of tables, each written once by one worker.

Knows nothing about what the figures mean. readers/samples.py has their columns.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from dynts_batch.data.files.damage import damage_named
from dynts_batch.data.files.storage import Storage
from dynts_batch.data.readers.columns import fit
from dynts_batch.data.readers.samples import SCHEMA
from dynts_batch.data.shard_table import to_parquet
from dynts_batch.errors import RunDirError

logger = logging.getLogger(__name__)

_WORKER_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


def write_part(storage: Storage, worker_id: str, part: int, table: pa.Table) -> None:
    assert _WORKER_ID.fullmatch(worker_id), worker_id
    storage.write(f"workers/{worker_id}-{part:05d}.parquet", to_parquet(table))


def read_parts(storage: Storage, root: str, *, skip_damaged: bool) -> Iterator[pa.Table]:
    """All parts with samples in the run directory `root`, by worker and part."""
    for info in storage.list("workers"):
        name = f"workers/{info.base_name}"
        try:
            data = storage.read(name)
            assert data is not None, info.path
            with damage_named(f"{root}/{name}", "go on without it"):
                samples = fit(pq.read_table(pa.BufferReader(data)), SCHEMA)
        except RunDirError as error:
            if not skip_damaged:
                raise
            logger.warning("left out of the figures: %s", error)
            continue
        if samples.num_rows:
            yield samples
