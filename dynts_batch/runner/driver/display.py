"""The live progress of a run on stderr: a bar in a terminal, else a line every 30 seconds."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from dynts_batch.report.units import counted, duration
from dynts_batch.runner.driver.state import State

LINE_S = 30.0


class Display:
    """A context manager; `show` the state as often as you like, `note` what the user must see."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._shown_at_s = time.monotonic()

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def note(self, text: str) -> None:
        """A line that stays."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def show(self, state: State) -> None:
        """Where the run stands now."""
        if self._console.is_terminal:
            self._live.update(_panel(state), refresh=True)
        elif time.monotonic() >= self._shown_at_s + LINE_S:
            self._shown_at_s = time.monotonic()
            self.note(progress_line(state))


def progress_line(state: State) -> str:
    """The state in one line."""
    share = state.num_done / state.num_rows
    return " | ".join([f"{state.num_done:,}/{state.num_rows:,} rows ({share:.0%})", *_facts(state)])


def _facts(state: State) -> list[str]:
    tally = state.tally
    facts = []
    if tally.errors:
        facts.append(f"{tally.errors:,} failed")
    if tally.skipped:
        facts.append(f"{tally.skipped:,} not needed")
    if tally.graded:
        facts.append(f"correct {tally.correct:,}/{tally.graded:,}")
    if tally.rows == 0 and state.num_steps:
        facts.append(counted(state.num_steps, "step"))  # rows of a large batch end late, together
    elif state.elapsed_s > 0:
        facts.append(f"{tally.completion_tokens / state.elapsed_s:,.0f} tokens/s")
    if tally.full_tokens:
        facts.append(f"stored/total tokens {tally.stored_tokens / tally.full_tokens:.0%}")
    if tally.cost_usd is not None:
        facts.append(f"${tally.cost_usd:,.4f}")
    if state.num_workers == 0 and tally.rows == 0:
        facts.append("waiting for workers to load")
    else:
        facts.append(f"{state.num_running} running on {counted(state.num_workers, 'worker')}")
    facts.append(f"ETA {_eta(state)}")
    return facts


def _eta(state: State) -> str:
    left = state.num_rows - state.num_done
    if left == 0:
        return "0:00"
    if state.tally.rows == 0:
        return "?"
    return duration(left * state.elapsed_s / state.tally.rows)


def _panel(state: State) -> Table:
    grid = Table.grid(padding=(0, 1))
    bar = ProgressBar(total=state.num_rows, completed=state.num_done, width=30)
    grid.add_row(bar, Text(f"{state.num_done:,}/{state.num_rows:,} rows"))
    outer = Table.grid()
    outer.add_row(grid)
    outer.add_row(Text(" | ".join(_facts(state)), style="dim"))
    return outer
