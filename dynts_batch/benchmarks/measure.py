"""Times contenders in turns, so that drift of the machine's speed hits all, and prints ratios."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich import box
from rich.console import Console
from rich.table import Table

from dynts_batch.benchmarks.contenders.contenders import Contender
from dynts_batch.benchmarks.workload import Load

WARM_UP_TOKENS = 16
Row = dict[str, Any]


def measure(
    contenders: Mapping[str, Contender], loads: Mapping[str, Load], rounds: int
) -> list[Row]:
    """One row for each contender and round. It counts everything from prompt to last token.

    Each contender first runs a short warm-up, which does not count.
    """
    for name, run in contenders.items():
        run(loads[name].shortened(WARM_UP_TOKENS))
    rows: list[Row] = []
    for index in range(rounds):
        for name, run in contenders.items():
            load = loads[name]
            result = run(load)
            check_lengths(result.completions, load)
            rows.append(
                {
                    "contender": name,
                    "round": index,
                    "batch_size": load.batch_size,
                    "tokens": load.total_new_tokens,
                    "wall_s": result.wall_s,
                    "cpu_s": result.cpu_s,
                    "tokens_per_s": load.total_new_tokens / result.wall_s,
                    "tokens_per_cpu_s": load.total_new_tokens / result.cpu_s,
                }
            )
    return rows


def check_lengths(completions: Sequence[Sequence[int]], load: Load) -> None:
    """Refuse a contender that generated less than it claims: its speed would be false."""
    assert [len(completion) for completion in completions] == load.num_new_tokens


def ratios(rows: Sequence[Row], name: str, baseline: str, column: str) -> list[float]:
    """`column` of a contender over the baseline's in the same round."""
    ours, theirs = (
        [row[column] for row in rows if row["contender"] == wanted] for wanted in (name, baseline)
    )
    return [a / b for a, b in zip(ours, theirs, strict=True)]


def _range(values: Sequence[float]) -> str:
    return f"\n({min(values):.2f}-{max(values):.2f})" if len(values) > 1 else ""


def print_table(rows: Sequence[Row], console: Console) -> None:
    """Median speeds, and ratios to the first contender in the same round: median (min-max)."""
    names = list(dict.fromkeys(row["contender"] for row in rows))
    table = Table(
        title=f"ratios to {names[0]} within the same round: median (min-max)", box=box.SIMPLE
    )
    table.add_column("contender", overflow="fold")
    for title in ("batch", "tokens/s", "ratio", "per CPU s", "ratio"):
        table.add_column(title, justify="right", no_wrap=True)
    for name in names:
        own = [row for row in rows if row["contender"] == name]
        cells = [name, str(own[0]["batch_size"])]
        for column in ("tokens_per_s", "tokens_per_cpu_s"):
            found = ratios(rows, name, names[0], column)
            cells += [
                f"{statistics.median(row[column] for row in own):,.0f}",
                f"{statistics.median(found):.2f}" + _range(found),
            ]
        table.add_row(*cells)
    console.print(table)


def write_rows(rows: Sequence[Row], path: Path) -> None:
    """Every measurement as a row of a Parquet file."""
    pq.write_table(pa.Table.from_pylist(list(rows)), path)
