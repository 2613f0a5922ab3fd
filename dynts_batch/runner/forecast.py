"""What a run will take, before it is paid for: a random sample of its rows is done and added up.

The sample is a run of its own beside the run directory, and is named after its settings. So a
second forecast of the same run costs nothing. It may be deleted at any time.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import random
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console
from rich.table import Table

from dynts_batch.config import Config, CostConfig
from dynts_batch.config_file import load_config, to_yaml
from dynts_batch.data.files.filesystem import extended
from dynts_batch.data.shard_table import read_columns
from dynts_batch.errors import ConfigError, RunDirError
from dynts_batch.exit_status import EXIT_OK
from dynts_batch.report.totals import beyond_text
from dynts_batch.report.units import counted, duration, size
from dynts_batch.runner.extrapolation import Interval, Memory, total_of
from dynts_batch.runner.prepared_run import PreparedRun, prepare
from dynts_batch.runner.reason import drive
from dynts_batch.runner.retry import has_work
from dynts_batch.runner.shard_plan import ShardPlan
from dynts_batch.telemetry import setup_logging

_COLUMNS = (
    *(
        "finish_reason",
        "prompt_tokens",
        "completion_tokens",
        "full_kv_bytes",
        "prefill_s",
        "decode_s",
    ),
    *("device_s", "energy_j", "worker_id", "request_id", "first_attempt"),
)


def forecast(config_path: str, overrides: Sequence[str], *, num_rows: int) -> int:
    """Do `num_rows` random rows of the configured run and print the forecast; the exit status.

    Raises: what a run raises.
    """
    if num_rows < 2:
        raise ConfigError(f"--rows must be at least 2, got {num_rows}")
    setup_logging()
    console = Console(stderr=True)
    config = load_config(config_path, overrides)
    address = os.environ.get("RAY_ADDRESS") or None
    run = prepare(
        _for_sample(config, is_local=address is None),
        is_local=address is None,
        choose=partial(_sample, num_rows=num_rows),
    )
    if has_work(run):
        console.print(
            f"trying {_num_shards(run.plan, num_rows) * run.plan.shard_rows:,} of"
            f" {run.plan.num_units:,} rows in {run.run_dir.path}",
            **_PLAIN,
        )
        status = drive(run, address, console)
        if status is not None:
            return status
    rows = _rows_of(run, _sample(run.plan, num_rows))
    samples = _first_telemetry(run, rows)
    lines = forecast_lines(
        rows,
        _memory(samples, rows),
        config,
        num_units=run.plan.num_units,
        num_devices=max(pc.max(part["num_devices"]).as_py() or 1 for part in samples),
    )
    table = Table(show_header=False)
    for name, value in lines:
        table.add_row(name, value)
    out = Console(file=sys.stdout)
    out.print(table)
    if (text := beyond_text(run.run_dir)) is not None:
        out.print(f"of the sample, {text}", **_PLAIN)
    return EXIT_OK


_PLAIN: dict[str, Any] = {"highlight": False, "markup": False, "soft_wrap": True}


def _for_sample(config: Config, *, is_local: bool) -> Config:
    """The same rows on one worker: the more rows share it, the more its batch is like the run's.

    Its folder is named after all settings but the prices, which are multiplied with at the end."""
    shard_rows = _rows_together(config)
    plain = dataclasses.replace(
        config.run, dir="", max_cost_usd=None, max_hours=None, shard_rows=shard_rows
    )
    from dynts_batch.runner.cluster import cpus_of_worker

    # Alone it would have all cores of this machine, which the run's workers share.
    num_cpus = cpus_of_worker(config, is_local=is_local)
    one = dataclasses.replace(config.workers, min=1, max=1, num_cpus=num_cpus)
    sample = dataclasses.replace(config, run=plain, workers=one)
    unpriced = to_yaml(dataclasses.replace(sample, cost=CostConfig()))
    digest = hashlib.blake2b(unpriced.encode(), digest_size=4).hexdigest()
    path = extended(str(config.run.dir), f"-plan-{digest}")
    return dataclasses.replace(sample, run=dataclasses.replace(plain, dir=path))


def _sample(plan: ShardPlan, num_rows: int) -> list[int]:
    dice = random.Random(0)  # the same rows each time: what is done is not done again
    return dice.sample(range(plan.num_shards), _num_shards(plan, num_rows))


def _rows_of(run: PreparedRun, shards: Sequence[int]) -> pa.Table:
    """Only these: of a larger plan that was stopped, the shortest rows are there too."""
    tables = []
    for shard in sorted(shards):
        with run.run_dir.open_shard(shard) as file:
            tables.append(read_columns(file, _COLUMNS))
    return pa.concat_tables(tables)


def _num_shards(plan: ShardPlan, num_rows: int) -> int:
    """Shards of about `num_rows` rows: at least two, or there would be no interval."""
    return min(max(2, num_rows // plan.shard_rows), plan.num_shards)


def _rows_together(config: Config) -> int:
    """Rows of which a random sample has all or none: those that wait for each other."""
    return 1 if config.sampling.stop_when is None else config.sampling.num_samples


def _first_telemetry(run: PreparedRun, rows: pa.Table) -> list[pa.Table]:
    """Without that of second attempts, which have arenas of their own."""
    samples = [part for part in run.run_dir.read_telemetry() if not _has_retried(rows, part)]
    if not samples:
        raise RunDirError(f"{run.run_dir.path} holds no telemetry: delete it and plan again")
    return samples


def _memory(samples: Sequence[pa.Table], rows: pa.Table) -> Memory:
    return Memory(
        arena_bytes=max(pc.max(part["arena_bytes"]).as_py() for part in samples),
        max_seqs=min(part["max_seqs"][-1].as_py() for part in samples),
        most_full_bytes=pc.max(rows["full_kv_bytes"]).as_py(),
    )


def _has_retried(rows: pa.Table, telemetry: pa.Table) -> bool:
    of_retries = rows.filter(rows["first_attempt"].is_valid())["worker_id"]
    return telemetry["worker_id"][0].as_py() in set(of_retries.to_pylist())


def forecast_lines(
    rows: pa.Table, memory: Memory, config: Config, *, num_units: int, num_devices: int
) -> list[tuple[str, str]]:
    """Lines of (what, how much) for a run of `num_units` rows, of which `rows` are a sample, on
    workers of `num_devices` each."""
    num_workers = config.workers.max
    all_devices = num_workers * num_devices * min(1.0, config.workers.num_gpus or 1.0)
    rows_per_worker = -(-num_units // num_workers)
    # The one worker of the sample had its devices to itself.
    batch, run_batch = num_devices * _mean_batch(rows), min(memory.max_seqs, rows_per_worker)
    share = min(1.0, batch / run_batch)
    total = partial(_total, rows, config, num_units)
    device_s = total("device_s").in_fuller_batch(share)
    hours = device_s.times(1 / 3600)
    kwh = None
    if rows["energy_j"].null_count == 0:
        joules = total("energy_j").in_fuller_batch(share)
        kwh = joules.times(1 / 3.6e6)
    num_failed = pc.sum(pc.equal(rows["finish_reason"], "error")).as_py()
    wanted_seqs = config.memory.max_seqs
    return [
        ("rows", f"{num_units:,}, from a sample of {rows.num_rows:,} ({num_failed:,} failed)"),
        ("prompt tokens", _count(total("prompt_tokens"))),
        ("generated tokens", _count(total("completion_tokens"))),
        *_retry_lines(rows, config),
        _device_time(device_s),
        (f"time on {counted(num_workers, 'worker')}", _time(device_s.times(1 / all_devices))),
        ("dollars", _dollars(hours, kwh, config.cost)),
        ("kWh", "n/a: not measured" if kwh is None else _amount(kwh)),
        ("rows at once on a worker", f"{memory.max_seqs:,} in {size(memory.arena_bytes)} of KV"),
        (
            "is KV memory the limit?",
            memory.verdict(wanted_seqs=wanted_seqs, rows_per_worker=rows_per_worker),
        ),
        ("batch of the sample", _batch(batch, run_batch, is_known=hours.total is not None)),
    ]


def _retry_lines(rows: pa.Table, config: Config) -> list[tuple[str, str]]:
    if config.policy.retry_budget is None:
        return []
    share = (rows.num_rows - rows["first_attempt"].null_count) / rows.num_rows
    budget = f"{config.policy.retry_budget:,}"
    return [("run again", f"{share:.1%} of the rows, with a budget of {budget}; counted here")]


def _total(rows: pa.Table, config: Config, num_units: int, column: str) -> Interval:
    """The sum of `column` over a run of `num_units` rows, of which `rows` are a sample."""
    together = _rows_together(config)
    if column == "completion_tokens":
        first = pc.struct_field(rows["first_attempt"], column)
        both = pc.add(rows[column], pc.fill_null(first, 0))
        rows = rows.set_column(rows.schema.get_field_index(column), column, both)
    values = rows[column]
    if together > 1:
        values = rows.group_by("request_id").aggregate([(column, "sum")])[f"{column}_sum"]
    return total_of(values.to_pylist(), num_units // together)


def _dollars(hours: Interval, kwh: Interval | None, cost: CostConfig) -> str:
    if cost.usd_per_gpu_hour is None and cost.usd_per_kwh is None:
        return "n/a: set cost.usd_per_gpu_hour"
    if cost.usd_per_kwh and kwh is None:
        return "n/a: cost.usd_per_kwh is set, and the energy is not measured here"
    usd = hours.times(cost.usd_per_gpu_hour or 0.0)
    power = Interval(0, 0, 0) if kwh is None else kwh.times(cost.usd_per_kwh or 0.0)
    return _amount(usd + power, "$")


def _mean_batch(rows: pa.Table) -> float:
    """Rows that were worked on at once, on average, over the devices of a worker."""
    # Of a row that ran again, the parts are the second attempt's.
    first_s = pc.fill_null(pc.struct_field(rows["first_attempt"], "device_s"), 0.0)
    device_s = pc.sum(pc.subtract(rows["device_s"], first_s)).as_py()
    sequence_s = pc.sum(rows["prefill_s"]).as_py() + pc.sum(rows["decode_s"]).as_py()
    return sequence_s / device_s if device_s else 0.0


def _batch(batch: float, run_batch: int, *, is_known: bool) -> str:
    """How full the batch was: a device is used better by a full one."""
    text = f"{min(batch, run_batch):,.1f} rows at once on average, of the run's {run_batch:,}"
    if is_known:
        return text
    return (
        f"{text}: a row of a fuller one costs less, so bounds are given;"
        " a larger --rows narrows them"
    )


def _amount(interval: Interval, unit: str = "") -> str:
    return _between(interval, lambda value: f"{unit}{value:,.4g}")


def _count(interval: Interval) -> str:
    return _between(interval, lambda value: f"{value:,.0f}")


def _device_time(seconds: Interval) -> tuple[str, str]:
    """In the largest unit of which it may be one or more."""
    units = {"hours": 3600, "minutes": 60}
    unit = next((name for name, length in units.items() if seconds.high >= length), "seconds")
    return f"device {unit}", _amount(seconds.times(1 / units.get(unit, 1)))


def _time(interval: Interval) -> str:
    return _between(interval, duration)


def _between(interval: Interval, show: Callable[[float], str]) -> str:
    bounds = f"{show(interval.low)} to {show(interval.high)}"
    if interval.total is None:
        return bounds
    if interval.is_of_all:
        return f"{show(interval.total)} (all rows)"
    return f"{show(interval.total)} (95%: {bounds})"
