"""One run from its configuration file to its exit status: what `dynts-batch run` does.

Imports heavy packages only once they are needed: a typing error in the configuration must not wait
for torch, nor a missing column for Ray.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from rich.console import Console

from dynts_batch.config import Config
from dynts_batch.config_file import load_config
from dynts_batch.data.progress import read_progress
from dynts_batch.data.run_dir import RunDir
from dynts_batch.errors import RunDirError
from dynts_batch.exit_status import (
    EXIT_LIMIT,
    EXIT_OK,
    EXIT_ROWS_FAILED,
    EXIT_SIGNAL,
    exit_status_of,
)
from dynts_batch.report.tables import show_end
from dynts_batch.report.totals import Totals, add_up, beyond_text
from dynts_batch.telemetry import setup_logging

if TYPE_CHECKING:
    from dynts_batch.data.claim import Claim
    from dynts_batch.runner.cluster import Resources
    from dynts_batch.runner.driver.display import Display
    from dynts_batch.runner.driver.limits import Limits
    from dynts_batch.runner.prepared_run import PreparedRun
    from dynts_batch.runner.worker.stop_signal import StopSignal


def reason(config_path: str, overrides: Sequence[str]) -> int:
    """Run, resume or find finished what `config_path` describes; the exit status."""
    console = Console(stderr=True)
    return exit_status_of(lambda: _reason(config_path, overrides, console), hint=_HINT)


_HINT = "What is done is in the run directory; the same command goes on from there."
_LIMIT_HINT = "What is done is in the run directory; raise the limit to go on from there."


def _reason(config_path: str, overrides: Sequence[str], console: Console) -> int:
    setup_logging()
    config = load_config(config_path, overrides)
    done = run_to_end(config, console)
    if not isinstance(done, Totals):
        return done
    path, out = str(config.run.dir), Console(file=sys.stdout)
    show_end(done, path, out)
    if (text := beyond_text(RunDir(path))) is not None:
        _say(out, text)
    return EXIT_ROWS_FAILED if done.num_errors else EXIT_OK


def run_to_end(config: Config, console: Console) -> Totals | int:
    """Run, resume or find finished what `config` describes:
    its sums, or the exit status where it was stopped.

    Raises: DyntsError.
    """
    from dynts_batch.runner.prepared_run import prepare
    from dynts_batch.runner.retry import has_work

    address = os.environ.get("RAY_ADDRESS") or None
    run = prepare(config, is_local=address is None)
    if has_work(run):
        _say(console, _opening(run))
        status = drive(run, address, console)
        if status is not None:
            return status
    else:
        _say(console, f"nothing to do: all {run.plan.num_units:,} rows are in {run.run_dir.path}")
    totals = add_up(run.run_dir)
    _seal(run, totals)
    return totals


def drive(run: PreparedRun, address: str | None, console: Console) -> int | None:
    """Do what is left of `run`; the exit status where it was stopped before its end."""
    from dynts_batch.runner.cluster import describe_resources, open_cluster, plan_resources
    from dynts_batch.runner.driver.display import Display
    from dynts_batch.runner.driver.limits import Used
    from dynts_batch.runner.retry import parts_of
    from dynts_batch.runner.worker.stop_signal import catch_stop_signals

    if (limit := _limits(run, spent_hours=0.0).reached(Used())) is not None:
        _say(console, f"nothing was started: the run is at {limit}. {_LIMIT_HINT}")
        return EXIT_LIMIT
    with (
        run.claim as claim,
        open_cluster(address),
        catch_stop_signals() as stop,
        Display(console) as display,
    ):
        resources = plan_resources(run.config, is_local=address is None)
        display.note(
            f"{resources.told(resources.num_workers)} on a Ray cluster of {describe_resources()}"
        )
        if address is not None and not resources.num_gpus and _leaves_device_open(run.config):
            display.note(
                "no GPU is in the cluster now, so this run uses CPUs: set workers.num_gpus=1 if"
                " nodes with GPUs are to join"
            )
        began_s = time.monotonic()
        for part in parts_of(run):
            limits = _limits(part, spent_hours=(time.monotonic() - began_s) / 3600)
            status = _drive_part(part, resources, limits, display, stop, claim)
            if status is not None:
                return status
    return None


def _limits(part: PreparedRun, *, spent_hours: float) -> Limits:
    from dynts_batch.runner.driver.limits import Limits, spent_usd

    is_capped = part.config.run.max_cost_usd is not None
    usd = spent_usd(part.run_dir) if is_capped else 0.0
    return Limits.of(part.config, spent_usd=usd, spent_hours=spent_hours)


def _drive_part(
    part: PreparedRun,
    resources: Resources,
    limits: Limits,
    display: Display,
    stop: StopSignal,
    claim: Claim,
) -> int | None:
    """Do all of `part`; the exit status where it was stopped before its end."""
    from dynts_batch.runner.driver.driver import Driver
    from dynts_batch.runner.driver.ray_fleet import RayFleet
    from dynts_batch.runner.messages import Job

    if part.num_retries:
        display.note(
            f"{part.num_retries:,} rows in {len(part.shards_to_do):,} shards run again with a"
            f" budget of {part.config.policy.budget:,} (policy.retry_budget)"
        )
    workers = replace(part.config.workers, num_cpus=resources.num_cpus)
    config = replace(part.config, workers=workers)
    job = Job(config, part.source.schema, resources.num_gpus, os.getcwd(), part.first_budget)
    driver = Driver(
        part,
        RayFleet(job, resources),
        num_workers=resources.num_workers,
        show=display.show,
        warn=display.note,
        limits=limits,
    )
    try:
        is_complete = driver.run(lambda: stop.is_set or claim.is_lost)
    finally:
        for text in driver.bad_nodes.values():
            display.note(f"avoided for a while: {text}")
        for text in driver.warnings:
            display.note(f"workers warned: {text}")
    if is_complete:
        return None
    claim.check()
    done = read_progress(part.run_dir, time.time())
    num_done = done.finished_rows + done.checkpointed_rows
    rows = f"{num_done:,} of {done.num_rows:,} rows"
    if stop.number is not None:
        display.note(f"stopped with {rows}. {_HINT}")
        return EXIT_SIGNAL + stop.number
    display.note(f"stopped with {rows} at {driver.limit}. {_LIMIT_HINT}")
    return EXIT_LIMIT


def _leaves_device_open(config: Config) -> bool:
    return config.workers.num_gpus is None and config.model.device == "auto"


def _opening(run: PreparedRun) -> str:
    todo, num_shards = len(run.shards_to_do), run.plan.num_shards
    verb = "starting" if run.is_new else "resuming"
    return (
        f"{verb} {run.run_dir.path}: {todo:,} of {num_shards:,} shards to do,"
        f" {run.plan.num_units:,} rows in all"
    )


def _seal(run: PreparedRun, totals: Totals) -> None:
    """Write the manifest, once every unit is known to have a row.

    Raises: RunDirError if rows are missing or too many.
    """
    if totals.num_rows != run.plan.num_units:
        raise RunDirError(
            f"{run.run_dir.path} must hold {run.plan.num_units} rows, got {totals.num_rows}:"
            " delete the damaged files in rows/ and run again"
        )
    manifest = {
        "num_rows": totals.num_rows,
        "num_shards": run.plan.num_shards,
        "finish_reasons": dict(sorted(totals.finish_reasons.items())),
    }
    if run.run_dir.read_manifest() != manifest:
        run.run_dir.write_manifest(manifest)


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
