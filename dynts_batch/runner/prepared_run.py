"""Everything that can be checked is checked here, before Ray starts or a GPU is taken."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass
from functools import cached_property, partial

import torch

from dynts_batch.config import Config
from dynts_batch.data.claim import Claim
from dynts_batch.data.readers.reader import open_source
from dynts_batch.data.readers.source import Source
from dynts_batch.data.run_dir import RunDir
from dynts_batch.data.shard_table import failed_rows
from dynts_batch.engine.factory import check_engine
from dynts_batch.errors import ConfigError, FingerprintError
from dynts_batch.grading import Grader
from dynts_batch.grading.stopping import Stopping
from dynts_batch.runner.fingerprint import (
    fingerprint_defaults,
    make_fingerprint,
    renewed_fingerprint,
)
from dynts_batch.runner.shard_plan import ShardPlan

MAX_SHARDS = 1_000_000


@dataclass(frozen=True)
class PreparedRun:
    """A run that may start: its settings hold, its input is readable, its directory is its own."""

    config: Config
    source: Source
    plan: ShardPlan
    run_dir: RunDir
    claim: Claim
    """To be held while the run is driven."""
    is_new: bool
    committed_shards: frozenset[int]
    checkpointed_shards: frozenset[int]
    has_worked: bool
    """An earlier start under the same fingerprint has left a row that is no error."""
    shards_to_do: tuple[int, ...]
    """Those that are not committed, and with run.retry_failed those that hold error rows."""
    first_budget: int | None = None
    """The budget of the first attempts, if this part is of second ones; see retry.py."""
    num_retries: int = 0
    """Second attempts of this part."""

    @cached_property
    def num_unasked(self) -> int:
        """Units of shards that are neither stored nor to be done: a plan and a tuning leave most
        of a run alone."""
        asked = self.committed_shards.union(self.shards_to_do)
        return self.plan.num_units - sum(len(self.plan.units(shard)) for shard in asked)


def prepare(
    config: Config, *, is_local: bool, choose: Callable[[ShardPlan], Iterable[int]] | None = None
) -> PreparedRun:
    """Check `config` and make or resume its run directory. `is_local`: the run stays on this
    machine. `choose`: the shards of a sample; default all.

    Raises:
        ConfigError, InputError: a user's mistake.
        RunDirError: the run directory cannot be used, holds another run,
        or is driven by another process.
    """
    config = _with_date_of_run(_with_absolute_run_dir(config))
    _check_gpus(config)
    Grader.from_config(config.grading).close()
    stopping = Stopping.from_config(config.sampling)
    model = check_engine(config, on_gpu=_may_be_on_gpu(config, is_local=is_local))
    config = dataclasses.replace(config, model=model.settings)
    source = open_source(config.input, config.sampling)
    source.validate()
    num_samples, shard_rows = config.sampling.num_samples, config.run.shard_rows
    plan = ShardPlan(source.num_rows, num_samples, shard_rows, in_turn=stopping is not None)
    if choose is None:
        _check_num_shards(plan)
    run_dir = RunDir(str(config.run.dir))
    if is_local and not run_dir.is_run():
        _check_fits_here(config)
    claim = run_dir.claim()
    claim.wait_until_free()
    fingerprint = make_fingerprint(config, model.identity, source, plan)
    try:
        is_new = run_dir.create_or_resume(
            config,
            fingerprint,
            fingerprint_defaults(config.policy.name),
            partial(renewed_fingerprint, model=model, retry_budget=config.policy.retry_budget),
        )
    except FingerprintError as error:
        if run_dir.list_shards("rows") or run_dir.list_shards("checkpoints"):
            raise
        raise FingerprintError(f"{error} It holds no row, so it may also be deleted.") from None
    committed, checkpointed = run_dir.finished_shards(), run_dir.list_shards("checkpoints")
    to_do = set(range(plan.num_shards) if choose is None else choose(plan)) - committed
    if config.run.retry_failed:
        to_do |= run_dir.failed_units().keys()
    return PreparedRun(
        config=config,
        source=source,
        plan=plan,
        run_dir=run_dir,
        claim=claim,
        is_new=is_new,
        committed_shards=frozenset(committed),
        checkpointed_shards=frozenset(checkpointed),
        has_worked=_has_worked(run_dir, committed, checkpointed),
        shards_to_do=tuple(sorted(to_do)),
    )


def _has_worked(run_dir: RunDir, committed: Set[int], checkpointed: Iterable[int]) -> bool:
    if committed - run_dir.list_shards("errors").keys():
        return True
    tables = (run_dir.read_checkpoint(shard) for shard in sorted(checkpointed))
    return any(len(failed_rows(table)) < len(table) for table in tables if table is not None)


def _with_absolute_run_dir(config: Config) -> Config:
    """Workers write to it from folders of their own."""
    path = str(config.run.dir)
    if "://" not in path:
        path = os.path.abspath(os.path.expanduser(path))
    return dataclasses.replace(config, run=dataclasses.replace(config.run, dir=path))


def _with_date_of_run(config: Config) -> Config:
    """What a chat template takes for today is the day on which the run began,
    or a resume would render other prompts."""
    if config.model.chat_date is not None:
        return config
    day = RunDir(str(config.run.dir)).chat_date()
    return dataclasses.replace(config, model=dataclasses.replace(config.model, chat_date=day))


def _check_gpus(config: Config) -> None:
    num_gpus, device = config.workers.num_gpus, config.model.device
    if num_gpus == 0 and device == "cuda":
        raise ConfigError("workers.num_gpus must be above 0 when model.device is cuda, got 0")


def _check_fits_here(config: Config) -> None:
    """Before the run directory is written, or it would hold the settings of a run that cannot be.

    Raises: ConfigError.
    """
    from dynts_batch.runner.cluster import check_fits_here  # Ray is slow to import

    check_fits_here(config)


def _check_num_shards(plan: ShardPlan) -> None:
    """A shard is a file, and an entry in the driver's books."""
    if plan.num_shards > MAX_SHARDS:
        least = -(-plan.num_units // MAX_SHARDS)
        raise ConfigError(
            f"run.shard_rows must be at least {least:,} for {plan.num_rows:,} prompts x"
            f" {plan.num_samples:,} samples (at most {MAX_SHARDS:,} shards), got"
            f" {plan.shard_rows:,}"
        )


def _may_be_on_gpu(config: Config, *, is_local: bool) -> bool:
    """Of a cluster's nodes nothing is known yet."""
    if config.model.device == "cpu" or config.workers.num_gpus == 0:
        return False
    return not is_local or torch.cuda.is_available()
