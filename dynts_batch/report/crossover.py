"""Which side of the crossover a run was on: did evicting buy concurrency, or only cost time?

Evicting pays where the full cache would have held fewer sequences in the same bytes than ran together. With memory to
spare it buys nothing. What a full cache would have decoded per second is measured or unknown, never derived.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dynts_batch.report.device_time import DeviceTime
from dynts_batch.report.run_rows import RunRows


@dataclass(frozen=True)
class Crossover:
    """Sequences that one worker decoded together, beside what the full cache would have allowed in its arena's bytes."""

    arena_bytes: int
    running: int
    """Most that ran together."""
    reserved: int
    """Of a full cache that reserves the longest sequence, prompt and completion, for each, as policy `full` does."""
    paged: int
    """Of a full cache without any waste: each sequence holds just the tokens that it has, on average over its life."""

    @property
    def is_ahead(self) -> bool:
        """Whether more ran together than even the best full cache would have held."""
        return self.running > self.paged


def find_crossover(run: RunRows, device: DeviceTime | None) -> Crossover | None:
    """None without telemetry, or without a row that was run."""
    is_run = run.is_run()
    if device is None or not is_run.any() or device.peak_running == 0:
        return None
    prompts, completions = (
        run.numbers(name)[is_run] for name in ("prompt_tokens", "completion_tokens")
    )
    full_tokens = prompts + completions - 1
    if full_tokens.sum() <= 0:
        return None
    bytes_per_token = run.numbers("full_kv_bytes")[is_run].sum() / full_tokens.sum()
    if bytes_per_token <= 0:
        return None
    longest = run.config.memory.max_prompt_tokens + run.config.sampling.max_new_tokens
    # A sequence lives as many steps as it generates tokens, and grows by one with each.
    mean_tokens = np.average(prompts + completions / 2, weights=completions)
    return Crossover(
        arena_bytes=device.arena_bytes,
        running=device.peak_running,
        reserved=int(device.arena_bytes // (longest * bytes_per_token)),
        paged=int(device.arena_bytes // (mean_tokens * bytes_per_token)),
    )
