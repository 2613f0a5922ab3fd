"""A frontier: one configuration run again and again, with other policies, budgets and seeds.
Budgets are tokens, or shares of what the full cache stores, which is run first then.

    DIR/cells/dynts-b240-s0/   a run directory each, so that the same command resumes
    DIR/frontier.parquet       every row of every finished cell
    DIR/frontier.svg           accuracy against KV memory, a line a policy

Every cell is a run like any other; nothing here knows how a run works.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from dynts_batch.config import Config
from dynts_batch.config_file import load_config
from dynts_batch.data.files.filesystem import extended
from dynts_batch.data.files.storage import Storage
from dynts_batch.data.run_dir import RunDir
from dynts_batch.errors import ConfigError, InputError
from dynts_batch.exit_status import EXIT_OK
from dynts_batch.report.frontier.picture import picture
from dynts_batch.report.frontier.points import FULL, SCHEMA, Frontier
from dynts_batch.report.frontier.table import table
from dynts_batch.report.totals import Totals
from dynts_batch.runner.reason import run_to_end
from dynts_batch.runner.shard_actors import absolute
from dynts_batch.telemetry import setup_logging


@dataclass(frozen=True)
class Cell:
    """One run of the frontier. `variant`: a policy's name and options,
    as in "h2o+accumulate=false"."""

    variant: str
    budget: int | None
    seed: int

    @property
    def name(self) -> str:
        """Of its folder."""
        variant = re.sub(r"[^\w.+=-]", ".", self.variant)
        budget = "" if self.budget is None else f"-b{self.budget}"
        return f"{variant}{budget}-s{self.seed}"

    def overrides(self, out: str) -> list[str]:
        """What it changes in the configuration."""
        name, *options = self.variant.split("+")
        budget = "null" if self.budget is None else str(self.budget)
        return [
            f"policy.name={name}",
            f"policy.budget={budget}",
            "policy.retry_budget=null",  # a cell is one budget
            *(f"policy.{option}" for option in options),
            f"sampling.seed={self.seed}",
            f"run.dir={extended(out, f'/cells/{self.name}')}",
        ]


def plan_cells(variants: Sequence[str], budgets: Sequence[int], seeds: Sequence[int]) -> list[Cell]:
    """All cells, each once, the full cache first; one seed of everything before the next, so that a
    part is a frontier too."""
    bounded = [variant for variant in variants if variant != FULL]
    cells = (
        cell
        for seed in seeds
        for cell in (
            Cell(FULL, None, seed),
            *(Cell(variant, budget, seed) for budget in budgets for variant in bounded),
        )
    )
    return list(dict.fromkeys(cells))


def budgets_of_shares(shares: Sequence[float], full: RunDir) -> list[int]:
    """Budgets in tokens from `shares`, in percent. 100% is what a row of the finished run `full`
    stored at its peak, prompt included: the mean over rows that did not fail.

    Raises: InputError if all failed.
    """
    batches = full.read_rows(["peak_cache_len", "finish_reason"])
    return budgets_of_rows(
        shares, (row for batch in batches for row in batch.to_pylist()), full.path
    )


def budgets_of_rows(
    shares: Sequence[float], rows: Iterable[Mapping[str, Any]], path: str
) -> list[int]:
    """The same for some `rows` of the run at `path`."""
    peaks = [row["peak_cache_len"] for row in rows if row["finish_reason"] != "error"]
    if not peaks:
        raise InputError(f"{path} must hold a row without an error, to take shares of, got none")
    return [round(share / 100 * sum(peaks) / len(peaks)) for share in shares]


def frontier_of_shares(
    config_path: str,
    out: str,
    variants: Sequence[str],
    shares: Sequence[float],
    seeds: Sequence[int],
    limit: int | None,
    overrides: Sequence[str],
) -> int:
    """`frontier`, the budgets in percent of what the full cache stores with the first seed;
    the exit status.

    Raises: ConfigError, InputError.
    """
    if wrong := [share for share in shares if not 0 < share < math.inf]:
        raise ConfigError(f"--shares must be above 0, got {wrong[0]:g}")
    full = plan_cells([], [], seeds[:1])
    # Any budget shows whether the settings are wrong, before the full cache has run for hours.
    _check(_configs(config_path, out, plan_cells(variants, [2**30], seeds), overrides))
    (config,) = _configs(config_path, out, full, overrides)
    run_dir = RunDir(str(config.run.dir))
    is_new = run_dir.read_manifest() is None
    status = frontier(config_path, out, full, limit, overrides)
    if run_dir.read_manifest() is None:
        return status
    if limit is not None and is_new:
        limit -= 1
    cells = plan_cells(variants, budgets_of_shares(shares, run_dir), seeds)
    return frontier(config_path, out, cells, limit, overrides)


def _configs(
    config_path: str, out: str, cells: Sequence[Cell], overrides: Sequence[str]
) -> list[Config]:
    folder = absolute(out)
    return [load_config(config_path, [*overrides, *cell.overrides(folder)]) for cell in cells]


def frontier(
    config_path: str, out: str, cells: Sequence[Cell], limit: int | None, overrides: Sequence[str]
) -> int:
    """Run `cells`, at most `limit` of those that are not finished, and draw what there is;
    the exit status.

    Raises: ConfigError where a cell's settings are wrong, before any is run.
    """
    from dynts_batch.runner.cluster import open_cluster

    setup_logging()
    console = Console(stderr=True)
    configs = _configs(config_path, out, cells, overrides)
    _check(configs)
    status = EXIT_OK
    with open_cluster(os.environ.get("RAY_ADDRESS") or None):  # one for all cells
        num_run = 0
        for cell, config in zip(cells, configs, strict=True):
            is_finished = RunDir(str(config.run.dir)).read_manifest() is not None
            if not is_finished and num_run == limit:
                continue
            num_run += not is_finished
            console.print(f"{cell.name} ({1 + cells.index(cell)} of {len(cells)} cells)")
            done = run_to_end(config, console)
            if not isinstance(done, Totals):
                status = done
                break
    write_frontier(out, cells, configs, Console())
    return status


def write_frontier(
    out: str, cells: Sequence[Cell], configs: Sequence[Config], console: Console
) -> None:
    """Gather the rows of the finished cells into one Parquet file,
    and show them as a table and a picture."""
    batches = [
        batch
        for cell, config in zip(cells, configs, strict=True)
        for batch in _rows(cell, RunDir(str(config.run.dir)))
    ]
    rows = pa.Table.from_batches(batches, SCHEMA)
    storage = Storage(absolute(out))
    storage.create()
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink)
    storage.write("frontier.parquet", sink.getvalue())
    if rows.num_rows:
        found = Frontier.of(rows)
        storage.write("frontier.svg", picture(found).encode())
        console.print(table(found))
    storage.delete_temp_files()
    written = [extended(out, f"/frontier.{ending}") for ending in ("parquet", "svg")]
    console.print(", ".join(written), highlight=False, soft_wrap=True)


def _rows(cell: Cell, run_dir: RunDir) -> Iterator[pa.RecordBatch]:
    if run_dir.read_manifest() is None:
        return
    of_the_cell = {"policy": cell.variant, "budget": cell.budget, "seed": cell.seed}
    columns = [name for name in SCHEMA.names if name not in of_the_cell]
    for batch in run_dir.read_rows([*columns, "reference"]):
        rows = [{**row, **of_the_cell} for row in batch.to_pylist()]
        # A row that failed is not right. Where nothing says what is right, no row counts.
        rows = [
            {**row, "correct": bool(row["correct"])}
            for row in rows
            if row["correct"] is not None
            or (row["finish_reason"] == "error" and (row["reference"] or "").strip())
        ]
        yield pa.RecordBatch.from_pylist(rows, SCHEMA)


def _check(configs: Sequence[Config]) -> None:
    """Refuse what cannot be compared, before the first hour is spent."""
    from dynts_batch.kvcache.policies import make_policy

    if configs[0].input.reference_column is None:
        raise ConfigError("a frontier needs input.reference_column: its rows are graded")
    if configs[0].grading.kind == "none":
        raise ConfigError("a frontier needs grading.kind: its rows are graded, got none")
    if (stop_when := configs[0].sampling.stop_when) is not None:
        raise ConfigError(
            "a frontier needs sampling.stop_when=null: its policies are compared on the same"
            f" samples, got {stop_when}"
        )
    seeds = {config.sampling.seed for config in configs}
    if configs[0].sampling.temperature == 0 and len(seeds) > 1:
        raise ConfigError(
            "a frontier of several seeds needs sampling.temperature above 0: greedy samples are all"
            f" the same, got seeds {', '.join(map(str, sorted(seeds)))}"
        )
    for config in configs:
        make_policy(config.policy)
