"""What is stored of a shard when a worker opens it: the rows that need not be computed again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc

from dynts_batch.data.first_attempt import first_attempts, needs_retry
from dynts_batch.data.readers.columns import fit
from dynts_batch.data.run_dir import RunDir
from dynts_batch.data.shard_table import Unit, units_of
from dynts_batch.errors import RunDirError
from dynts_batch.records import NOT_RUN
from dynts_batch.runner.messages import Assignment, Job


@dataclass(frozen=True, slots=True)
class Stored:
    """`rows` are done. `first` are the first attempts of those that are run again."""

    rows: pa.Table | None = None
    first: Mapping[Unit, Mapping[str, Any]] = field(default_factory=dict)

    @classmethod
    def read(cls, run_dir: RunDir, assignment: Assignment, schema: pa.Schema, job: Job) -> Self:
        """In the columns of `schema`.

        Raises: RunDirError if the rows cannot be read.
        """
        shard = assignment.shard
        checkpoint = run_dir.read_checkpoint(shard) if assignment.may_have_checkpoint else None
        committed = None
        if assignment.is_committed and (checkpoint is None or job.first_budget is not None):
            committed = run_dir.read_shard(shard)
        if checkpoint is not None:
            checkpoint = _fit(checkpoint, schema, shard)
        if committed is not None:
            committed = _fit(committed, schema, shard)
        if job.first_budget is not None:
            assert committed is not None, "all rows are there before any is run again"
            return cls._of_retries(committed, checkpoint, job, job.first_budget)
        rows = committed if checkpoint is None else checkpoint
        if rows is not None and job.config.run.retry_failed:
            # And what was skipped: other samples of their question may decide otherwise.
            is_run = pc.invert(pc.is_in(rows["finish_reason"], pa.array(NOT_RUN)))
            rows = rows.filter(is_run)
        return cls(rows)

    @classmethod
    def _of_retries(
        cls, committed: pa.Table, checkpoint: pa.Table | None, job: Job, budget: int
    ) -> Self:
        is_due = needs_retry(committed, job.config.grading.kind)
        rows, first = committed.filter(pc.invert(is_due)), committed.filter(is_due)
        if checkpoint is not None:
            due = set(units_of(first))
            is_retried = checkpoint["first_attempt"].is_valid()
            is_done = pa.array(unit in due for unit in units_of(checkpoint))
            rows = pa.concat_tables([rows, checkpoint.filter(pc.and_(is_retried, is_done))])
        return cls(rows, first_attempts(first, budget))


def remedy(shard: int) -> str:
    """What to do about a shard whose rows are damaged."""
    return f"Delete checkpoints/ and rows/shard-{shard:05d}.parquet to compute it again"


def _fit(table: pa.Table, schema: pa.Schema, shard: int) -> pa.Table:
    try:
        return fit(table, schema)
    except pa.ArrowException as error:
        raise RunDirError(
            f"what is stored of shard {shard} must have the columns of the input: {error}."
            f" {remedy(shard)}"
        ) from error
