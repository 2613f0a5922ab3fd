"""Calibration of a model's thoughts from a finished run, on a Ray cluster:
what `dynts-batch calibrate-thoughts` does."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from dynts_batch.config import PolicyConfig
from dynts_batch.config_file import load_settings
from dynts_batch.data.run_dir import RunDir
from dynts_batch.data.shard_table import Unit
from dynts_batch.errors import ConfigError, InputError, RunDirError
from dynts_batch.exit_status import EXIT_OK
from dynts_batch.kvcache.model_id import ModelId
from dynts_batch.runner.shard_actors import absolute, over_shards, say, with_own_weights


@dataclass(frozen=True)
class CalibrationSettings:
    """What is measured."""

    num_traces: int = 100
    """Correct traces, one a question."""
    num_steps: int = 4096
    """Decode steps of a trace at most, spread evenly over it."""

    def __post_init__(self) -> None:
        if self.num_traces < 1 or self.num_steps < 2:
            raise ConfigError(
                "num_traces must be at least 1 and num_steps at least 2, got"
                f" {self.num_traces} and {self.num_steps}"
            )


def calibrate_thoughts(run_path: str, out: Path, overrides: Sequence[str]) -> int:
    """Calibrate the model of the run at `run_path`, into `out`; the exit status.

    Raises: DyntsError.
    """
    from dynts_batch.training.calibration import write_calibration
    from dynts_batch.training.sparsity import SparsityMeter
    from dynts_batch.training.traces import choose_units

    settings = load_settings(CalibrationSettings, overrides)
    _check_out(out)
    run_path = absolute(run_path)
    run_dir = RunDir(run_path)
    config = with_own_weights(run_dir.config())
    _check_policy(run_path, config.policy)
    todo = _first(choose_units(run_dir, traces_per_question=1), settings.num_traces)
    args = run_path, settings.num_steps
    traces = []
    for number, found in enumerate(over_shards(SparsityMeter, args, config, todo), start=1):
        traces += found
        say(f"{number}/{len(todo)} shards, {len(traces)} traces")
    num_chosen = sum(map(len, todo.values()))
    if len(traces) < num_chosen:
        say(
            f"{num_chosen - len(traces)} of {num_chosen} traces dropped: their tokens are not known"
        )
    if not traces:
        raise InputError(f"{run_path} must hold a correct trace whose tokens are known, got none")
    out.parent.mkdir(parents=True, exist_ok=True)
    model = ModelId.of(config.model.name, run_dir.fingerprint()["model"])
    calibration = write_calibration(out, traces, model=model)
    for x in calibration.layers:
        print(f"layer {x.layer}: three modes in {x.share:.0%} of prompts, depth {x.depth:.2f}")
    thoughts = calibration.thoughts
    if thoughts.layers:
        print(
            f"layers {', '.join(map(str, thoughts.layers))}: execution below a sparsity of"
            f" {thoughts.low:.3f}, transition above {thoughts.high:.3f}"
        )
    else:
        print("no layer shows three modes in most prompts: one type of thought, eviction by age")
    print(f"wrote {out} and {out.with_suffix('.svg')}, measured on {len(traces)} traces")
    return EXIT_OK


def _check_out(out: Path) -> None:
    """Before hours of work and not after them."""
    folder = next(folder for folder in out.absolute().parents if folder.exists())
    can_be_made = folder.is_dir() and os.access(folder, os.W_OK) and not out.is_dir()
    if out.suffix != ".safetensors" or not can_be_made:
        raise ConfigError(
            "OUT must be a file named *.safetensors, in a folder that can be written to, got"
            f" {str(out)!r}"
        )


def _check_policy(run_path: str, policy: PolicyConfig) -> None:
    """Sparsity is measured as the full cache has it,
    so its traces must be those of the full cache."""
    if policy.name != "full" or policy.quantize is not False:
        raise RunDirError(
            f"{run_path} must be a run with policy.name=full and policy.quantize=false, got"
            f" {policy.name!r} and {policy.quantize!r}"
        )


def _first(chosen: dict[int, list[Unit]], count: int) -> dict[int, list[Unit]]:
    """The first `count` of the chosen units, by shard."""
    todo: dict[int, list[Unit]] = {}
    units = ((shard, unit) for shard, units in sorted(chosen.items()) for unit in units)
    for shard, unit in islice(units, count):
        todo.setdefault(shard, []).append(unit)
    return todo
