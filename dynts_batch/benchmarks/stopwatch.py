"""Times calls: wall-clock time, and CPU time of all threads of this process.

Other processes lengthen CPU time little. Imported in other environments too, see workload.py.
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
    """CPU time. With a GPU, the wall-clock time at which it has finished all its work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()
