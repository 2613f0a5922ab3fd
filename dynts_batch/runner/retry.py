"""The second part of a run: the rows that need more room run again, with policy.retry_budget.

It begins once all rows are there, and is read off them. So a run that was stopped anywhere goes on
with what is left, on any number of workers. A shard file is replaced whole, once all of its retries
have ended.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from dynts_batch.data.progress import rows_to_retry
from dynts_batch.runner.prepared_run import PreparedRun


def parts_of(run: PreparedRun) -> Iterator[PreparedRun]:
    """What is left to do, one part after another: the rows of `run`, then those to be retried.

    Each part must have ended before the next one is asked for.
    """
    if run.shards_to_do:
        yield run
    if (retries := _retries_of(run)) is not None:
        yield retries


def has_work(run: PreparedRun) -> bool:
    """Whether anything of `run` is left to do."""
    return bool(run.shards_to_do) or _retries_of(run) is not None


def _retries_of(run: PreparedRun) -> PreparedRun | None:
    policy = run.config.policy.of_retries
    if policy is None:
        return None
    counts = rows_to_retry(run.run_dir, run.config.grading.kind)
    if not counts:
        return None
    # Failed rows were run again in the first part, where that was wanted, with the first budget.
    settings = dataclasses.replace(run.config.run, retry_failed=False)
    return dataclasses.replace(
        run,
        config=dataclasses.replace(run.config, policy=policy, run=settings),
        committed_shards=frozenset(run.run_dir.finished_shards()),
        checkpointed_shards=frozenset(run.run_dir.list_shards("checkpoints")),
        has_worked=True,
        shards_to_do=tuple(counts),
        first_budget=run.config.policy.budget,
        num_retries=sum(counts.values()),
    )
