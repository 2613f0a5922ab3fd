"""The rows of a worker's open shards: graded, checkpointed, and committed when complete.

Runs in the worker's writer thread, because grading and storage wait (for a child process, for a
bucket) while the engine must not. Knows nothing about engines or Ray.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from dynts_batch.data.first_attempt import with_first
from dynts_batch.data.run_dir import RunDir
from dynts_batch.data.shard_table import Unit, units_of
from dynts_batch.data.source_columns import unpack
from dynts_batch.data.writer import output_row, rows_to_table
from dynts_batch.errors import RunDirError
from dynts_batch.grading import Grader
from dynts_batch.grading.stopping import Sample, Stopping
from dynts_batch.records import NOT_RUN, Completion
from dynts_batch.runner.messages import Assignment, Finished, Item, Tally
from dynts_batch.runner.worker.stored_rows import Stored, remedy
from dynts_batch.runner.worker.turns import Turns


@dataclass(frozen=True, slots=True)
class Measured:
    """A completion and what the worker measured or priced beside it."""

    completion: Completion
    extras: dict[str, Any]
    """Columns of the row: energy_j, cost_usd, worker_id, node, device_*."""


@dataclass(slots=True)
class Written:
    """What came of completions once they were rows."""

    finished: Finished = field(default_factory=Finished)
    to_run: list[Item] = field(default_factory=list)
    """Units that waited for these rows."""


class OpenShard:
    """A shard in this worker's hands: the rows from before, the rows since, and what is missing."""

    def __init__(
        self, assignment: Assignment, stored: Stored, stopping: Stopping | None = None
    ) -> None:
        """`stored` is what earlier leases left behind.

        Raises: RunDirError where those are another shard's.
        """
        self.number = assignment.shard
        self.attempt = assignment.attempt
        self.items = {(i.row.request_id, i.sample_index): i for i in assignment.items}
        self._stored, self._first = stored.rows, stored.first
        self._columns = unpack(assignment.columns)
        self._first_row = assignment.items[0].row.index
        self._source_rows: list[int] = []
        self.rows: list[dict[str, Any]] = []
        self.num_checkpointed = 0
        done = set() if stored.rows is None else set(units_of(stored.rows))
        if foreign := done - self.items.keys():
            raise RunDirError(
                f"what is stored of shard {self.number} must be its own rows, got {min(foreign)}."
                f" {remedy(self.number)}"
            )
        self.already_done = [item.unit for unit, item in self.items.items() if unit in done]
        self._num_missing = len(self.items) - len(done)
        self._turns = Turns(stopping, assignment.items, assignment.held_back)
        for unit, sample in _samples(stored.rows):
            self._turns.record(self.items[unit], sample)
        self.to_run, self.to_skip = self._turns.due()
        """What the lease begins with."""
        self._num_begun = len(self.to_run)

    @property
    def is_ended(self) -> bool:
        """Whether nothing is left that this lease may run."""
        return self._num_begun == 0

    @property
    def is_complete(self) -> bool:
        """Whether every unit of the shard has a row."""
        return len(self.rows) == self._num_missing

    def add(self, item: Item, row: dict[str, Any]) -> list[Item]:
        """Take `row`, which is that of `item`; returns what is to be run for it now."""
        self._take(item, row)
        self._num_begun -= 1
        self._turns.record(item, _sample(row))
        to_run, self.to_skip = self._turns.due(item.row.index)
        self._num_begun += len(to_run)
        return to_run

    def skip(self, item: Item, row: dict[str, Any]) -> None:
        """Take `row`, which is that of `item`, one of `to_skip`."""
        self._take(item, row)

    def _take(self, item: Item, row: dict[str, Any]) -> None:
        first = self._first.get((item.row.request_id, item.sample_index))
        self.rows.append(row if first is None else with_first(row, first))
        self._source_rows.append(item.row.index - self._first_row)

    def table(self, schema: pa.Schema) -> pa.Table:
        columns = self._columns.take(pa.array(self._source_rows, pa.int64()))
        new = rows_to_table(schema, self.rows, columns)
        return new if self._stored is None else pa.concat_tables([self._stored, new])


class ShardWriter:
    """Owns the open shards. One thread calls it, or one at a time."""

    def __init__(self, run_dir: RunDir, schema: pa.Schema, grader: Grader) -> None:
        self._run_dir, self._schema, self._grader = run_dir, schema, grader
        self._open: dict[Unit, OpenShard] = {}

    def open(self, shard: OpenShard) -> Written:
        """Take charge of `shard`; one without anything to run is finished at once."""
        written = Written(Finished(units=shard.already_done))
        self._begin(shard, shard.to_run)
        self._skip_and_end(shard, written.finished)
        return written

    def add(self, results: Sequence[Measured]) -> Written:
        """Make rows of `results`; commits or saves the shards that end with them.

        Raises: RunDirError where the run directory cannot be written.
        """
        written = Written()
        for result in results:
            completion = result.completion
            shard = self._open.pop((completion.request_id, completion.sample_index))
            item = shard.items[completion.request_id, completion.sample_index]
            row = self._row(item, result, shard.attempt)
            to_run = shard.add(item, row)
            self._begin(shard, to_run)
            written.to_run += to_run
            _count(written.finished, item, row)
            self._skip_and_end(shard, written.finished)
        return written

    def _begin(self, shard: OpenShard, items: Iterable[Item]) -> None:
        for item in items:
            self._open[item.row.request_id, item.sample_index] = shard

    def _skip_and_end(self, shard: OpenShard, finished: Finished) -> None:
        for item in shard.to_skip:
            completion = Completion.skipped(item.row.request_id, item.sample_index)
            extras = {"attempt": shard.attempt, "energy_j": 0.0, "cost_usd": 0.0}
            row = output_row(self._schema, item.row, completion, extras)
            shard.skip(item, row)
            _count(finished, item, row)
        if shard.is_ended:
            self._end(shard, finished)

    def checkpoint(self) -> None:
        """Store the rows of open shards that are not on disk yet.

        Raises: RunDirError where the run directory cannot be written.
        """
        for shard in {shard.number: shard for shard in self._open.values()}.values():
            if len(shard.rows) > shard.num_checkpointed:
                self._run_dir.write_checkpoint(shard.number, shard.table(self._schema))
                shard.num_checkpointed = len(shard.rows)

    def _row(self, item: Item, result: Measured, attempt: int) -> dict[str, Any]:
        completion = result.completion
        extras = {**result.extras, "attempt": attempt}
        if completion.finish_reason != "error":
            grade = self._grader.grade(completion.answer, item.row.reference, completion.reasoning)
            extras |= dataclasses.asdict(grade)
        return output_row(self._schema, item.row, completion, extras)

    def _end(self, shard: OpenShard, finished: Finished) -> None:
        table = shard.table(self._schema)
        if shard.is_complete:
            self._run_dir.commit_shard(shard.number, table, list(shard.items))
            finished.committed.append(shard.number)
        else:
            self._run_dir.write_checkpoint(shard.number, table)
            finished.saved.append(shard.number)


def _samples(stored: pa.Table | None) -> Iterator[tuple[Unit, Sample | None]]:
    if stored is None:
        return
    columns = stored.select(["finish_reason", "extracted_answer", "correct"])
    yield from zip(units_of(stored), map(_sample, columns.to_pylist()), strict=True)


def _sample(row: Mapping[str, Any]) -> Sample | None:
    if row["finish_reason"] in NOT_RUN:
        return None
    return Sample.of(row["extracted_answer"], row["correct"])


def _count(finished: Finished, item: Item, row: dict[str, Any]) -> None:
    finished.units.append(item.unit)
    finished.tally += _tally(row)


def _tally(row: dict[str, Any]) -> Tally:
    reason = row["finish_reason"]
    return Tally(
        rows=1,
        errors=int(reason == "error"),
        skipped=int(reason == "skipped"),
        evictions=row["num_evictions"],
        graded=int(row["correct"] is not None),
        correct=int(row["correct"] is True),
        completion_tokens=row["completion_tokens"],
        stored_tokens=row["peak_cache_len"],
        full_tokens=0 if reason in NOT_RUN else row["prompt_tokens"] + row["completion_tokens"] - 1,
        device_s=row["device_s"],
        energy_j=row["energy_j"],
        cost_usd=row["cost_usd"],
    )
