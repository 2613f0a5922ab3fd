"""The report in the terminal: the figures of one run with their notes, or several runs below each
other.

Several runs are the rows of a table. It is cut into blocks as wide as the terminal, so any number
of runs and figures can be read in 80 columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rich.box import SIMPLE_HEAD, SQUARE, Box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dynts_batch.data.files.filesystem import extended
from dynts_batch.report.comparison.pairs import pairs_to_show
from dynts_batch.report.comparison.settings import settings_text
from dynts_batch.report.comparison.side_by_side import RunColumn, conclusion, details, overview, why
from dynts_batch.report.endings.lines import endings_lines
from dynts_batch.report.lines import (
    Line,
    comparison_text,
    cost_lines,
    end_lines,
    failed_text,
    quality_lines,
    warnings,
    work_lines,
)
from dynts_batch.report.measures import Measures
from dynts_batch.report.samples.lines import samples_lines
from dynts_batch.report.totals import Totals
from dynts_batch.report.verdict import verdict

_PAD = 2
_RULE = 1
"""What stands between two columns beside the padding, if only a space."""
_MAX_LABEL = 28
_MAX_WORDS = 12
"""Width of a column's name, unless one of its words is wider."""


def show_report(runs: Sequence[Measures], console: Console) -> None:
    """Print the figures of `runs`, and how they differ."""
    if len(runs) == 1:
        _show_one(runs[0], console)
    else:
        _show_several(runs, console)


def show_end(totals: Totals, path: str, console: Console) -> None:
    """Print what one looks at first when a run has ended, and where the rest is."""
    console.print(_lines([end_lines(totals)], box=None))
    _say(console, verdict(totals))
    if totals.num_errors:
        _say(console, failed_text(totals, path))
    # Not in the table: a path that is broken over lines cannot be copied.
    _say(console, extended(path, "/rows/*.parquet"))
    _say(console, f"dynts-batch report {path} --open")


def _show_one(run: Measures, console: Console) -> None:
    _say(console, run.label)
    for warning in warnings(run):
        _say(console, warning)
    totals = run.totals
    groups = [
        quality_lines(run),
        samples_lines(run),
        endings_lines(totals),
        cost_lines(totals),
        work_lines(totals),
    ]
    console.print(_lines([group for group in groups if group]))
    _say(console, verdict(totals))


def _show_several(runs: Sequence[Measures], console: Console) -> None:
    labels = [run.label for run in runs]
    for run in runs:
        for warning in warnings(run):
            _say(console, f"{run.label}: {warning}")
    _show_blocks(labels, overview(runs), console)
    for number, text in enumerate(
        filter(None, (settings_text(runs), conclusion(runs), *why(runs)))
    ):
        _say(console, text if number else f"\n{text}")
    for title, columns in details(runs).items():
        _say(console, f"\n{title}")
        _show_blocks(labels, columns, console)
    _say(console, "\nIs the difference more than chance?")
    for pair in pairs_to_show(runs):
        left_out = f" ({pair.num_left_out:,} questions left out)" if pair.num_left_out else ""
        _say(console, f"  {pair.names}: {comparison_text(pair.found)}{left_out}")


def _lines(groups: Iterable[Sequence[Line]], box: Box | None = SQUARE) -> Table:
    """Names, values and notes, a rule between the groups."""
    table = Table(show_header=False, box=box)
    table.add_column(style="bold")
    table.add_column(justify="right", no_wrap=True)
    table.add_column(overflow="fold")
    for lines in groups:
        for line in lines:
            # Text, not markup: names of models, folders and errors may contain brackets.
            table.add_row(*map(Text, (line.name, line.value, line.note)))
        table.add_section()
    return table


def _show_blocks(labels: Sequence[str], columns: Sequence[RunColumn], console: Console) -> None:
    for number, table in enumerate(_blocks(labels, columns, console.width)):
        console.print(*([""] if number else []), table, sep="\n")


def _blocks(labels: Sequence[str], columns: Sequence[RunColumn], width: int) -> Iterator[Table]:
    """One row per run. Columns that do not fit go on in another table with the same rows."""
    label_width = min(_MAX_LABEL, max(map(len, labels)))
    left: list[RunColumn] = []
    room = width - label_width
    for column in columns:
        needed = _PAD + _RULE + _width(column)
        if left and needed > room:
            yield _block(labels, label_width, left)
            left, room = [], width - label_width
        left.append(column)
        room -= needed
    if left:
        yield _block(labels, label_width, left)


def _block(labels: Sequence[str], label_width: int, columns: Sequence[RunColumn]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, _PAD, 0, 0), show_edge=False)
    table.add_column("run", width=label_width, overflow="fold", vertical="bottom")
    for column in columns:
        table.add_column(Text(column.name), justify="right", width=_width(column), overflow="fold")
    for row, label in enumerate(labels):
        table.add_row(*map(Text, (label, *(column.values[row] for column in columns))))
    return table


def _width(column: RunColumn) -> int:
    """Width of its values, or of its name broken between words."""
    words = max(map(len, column.name.split()))
    return max(words, min(_MAX_WORDS, len(column.name)), *map(len, column.values))


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
