"""Times calls: wall-clock, and the CPU time of all threads of this process, which other processes lengthen little.

Imported in other environments too: see workload.py.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Timed:
    """One run of a contender."""

    wall_s: float
    cpu_s: float
    completions: list[list[int]]


def timed(run: Callable[[], list[list[int]]]) -> Timed:
    wall, cpu = time.perf_counter(), time.process_time()
    completions = run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return Timed(time.perf_counter() - wall, time.process_time() - cpu, completions)


def now() -> float:
    """CPU time; with a GPU, the time at which it has done all it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()
