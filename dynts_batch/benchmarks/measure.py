"""Times contenders in turns, so that drift of the machine's speed falls on all of them, and prints ratios."""

import statistics
import time
from collections.abc import Sequence

import torch
from rich.console import Console
from rich.table import Table

from dynts_batch.benchmarks.contenders import Workload, check_lengths, make_contender


def measure(names: Sequence[str], workload: Workload, rounds: int) -> dict[str, list[float]]:
    """Tokens per second of each contender in each round, everything from the prompt to the last token counted.

    One short warm-up each is not counted.
    """
    contenders = {name: make_contender(name, workload) for name in names}
    speeds: dict[str, list[float]] = {name: [] for name in names}
    for round_index in range(rounds + 1):
        for name, run in contenders.items():
            started = time.perf_counter()
            outputs = run()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            elapsed = time.perf_counter() - started
            check_lengths(outputs, workload)
            if round_index > 0:
                speeds[name].append(workload.batch_size * workload.max_new_tokens / elapsed)
    return speeds


def print_table(speeds: dict[str, list[float]], baseline: str, console: Console) -> None:
    """Median tokens/s, and each contender's ratio to the baseline of the same round: median (min to max)."""
    table = Table(title=f"tokens/s, ratios to {baseline} within the same round")
    for title in ("contender", "tokens/s", "ratio", "min", "max"):
        table.add_column(title, justify="left" if title == "contender" else "right")
    for name, values in speeds.items():
        ratios = [a / b for a, b in zip(values, speeds[baseline], strict=True)]
        cells = (statistics.median(ratios), min(ratios), max(ratios))
        table.add_row(
            name, f"{statistics.median(values):.0f}", *(f"{ratio:.2f}x" for ratio in cells)
        )
    console.print(table)
