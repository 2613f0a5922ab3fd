"""From a lease to an assignment: reads the shard's rows and says which units are not to be run."""

from __future__ import annotations

from collections.abc import Mapping

from dynts_batch.data.source_columns import pack
from dynts_batch.errors import QuarantinedError, RowError
from dynts_batch.runner.driver.ledger import Lease
from dynts_batch.runner.messages import Assignment, Item
from dynts_batch.runner.prepared_run import PreparedRun


class Assigner:
    """Knows which shards may have left a checkpoint,
    in earlier starts of the run or in this one."""

    def __init__(self, run: PreparedRun) -> None:
        self._run = run
        self._may_have_checkpoint = set(run.checkpointed_shards)

    def assignment(self, lease: Lease, quarantined: Mapping[int, str]) -> Assignment:
        """What the worker of `lease` is told; `quarantined` units become error rows.

        Raises: InputError where the data set cannot be read any more.
        """
        run, shard = self._run, lease.shard
        bounds = run.plan.rows(shard)
        source = run.source.read(bounds.start, bounds.stop)
        rows = {row.index: row for row in source.rows}
        items = []
        for unit in run.plan.units(shard):
            index, sample_index = run.plan.row_and_sample(unit)
            error: RowError | None = rows[index].error or self._quarantine(quarantined.get(unit))
            trace = run.plan.is_among(unit, run.config.run.trace_rows)
            items.append(Item(unit, sample_index, rows[index], error, trace))
        may_have_checkpoint = shard in self._may_have_checkpoint
        self._may_have_checkpoint.add(shard)
        return Assignment(
            shard=shard,
            attempt=lease.attempt,
            items=tuple(items),
            columns=pack(source.columns),
            held_back=lease.held_back,
            may_have_checkpoint=may_have_checkpoint,
            is_committed=shard in run.committed_shards,
        )

    def _quarantine(self, reason: str | None) -> QuarantinedError | None:
        if reason is None:
            return None
        attempts = self._run.config.run.max_attempts
        return QuarantinedError(
            f"it was in flight each of the {attempts} or more times (run.max_attempts) that its"
            f" worker died, at last of: {reason}"
        )
