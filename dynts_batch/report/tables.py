"""The report in the terminal: a table with a column per run, and one of the differences between them."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dynts_batch.report.comparison import compare_all
from dynts_batch.report.lines import (
    comparison_text,
    cost_lines,
    measured_against_full,
    quality_lines,
    verdict,
    work_lines,
)
from dynts_batch.report.measures import Measures


def show_report(runs: Sequence[Measures], console: Console) -> None:
    """Print the figures of `runs` side by side, and what sets them apart."""
    console.print(_figures(runs))
    for run in runs:
        _say(console, f"{run.label}: {verdict(run)}")
    full = [run for run in runs if run.run.config.policy.name == "full"]
    for run in runs:
        if full and run is not full[0]:
            _say(console, f"{run.label}: {measured_against_full(run, full[0])}")
    for pair in compare_all(list(runs)):
        left_out = f" ({pair.num_left_out:,} questions left out)" if pair.num_left_out else ""
        text = f"{pair.b.label} minus {pair.a.label}: {comparison_text(pair.found)}{left_out}"
        _say(console, text)


def _figures(runs: Sequence[Measures]) -> Table:
    table = Table(show_header=True, header_style="bold")
    table.add_column("")
    for run in runs:
        table.add_column(Text(run.label), justify="right")
    if len(runs) == 1:
        table.add_column("")
    for lines_of in (quality_lines, cost_lines, work_lines):
        columns = [{line.name: line for line in lines_of(run)} for run in runs]
        names = dict.fromkeys(name for column in columns for name in column)
        for name in names:
            values = [column[name].value if name in column else "n/a" for column in columns]
            notes = [columns[0][name].note] if len(runs) == 1 else []
            # Text, not markup: names of models, folders and errors may hold brackets.
            table.add_row(*map(Text, (name, *values, *notes)))
        table.add_section()
    return table


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
