"""Where a run stands, for whoever shows it."""

from __future__ import annotations

from dataclasses import dataclass

from dynts_batch.runner.messages import Tally


@dataclass(frozen=True)
class State:
    """As of one moment."""

    num_rows: int
    num_done: int
    num_workers: int
    """Ready ones."""
    num_running: int
    num_steps: int
    """Engine steps of the workers that are there now."""
    tally: Tally
    """Of this start of the run only; it counts rows that were lost and run again each time."""
    elapsed_s: float
    """Since the first worker was ready."""
    spent_usd: float = 0.0
    """By all starts of the run, what was lost included."""
