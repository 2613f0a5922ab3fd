"""Which side of the crossover a run was on: did evicting buy concurrency, or only cost time?

Evicting pays if the full cache would have held fewer sequences in the same bytes than ran together.
With memory to spare it buys nothing. What a full cache would have decoded per second is measured or
unknown, never derived.
"""

from __future__ import annotations

from dataclasses import dataclass

from dynts_batch.report.device_time import DeviceTime


@dataclass(frozen=True)
class Crossover:
    """Sequences that one worker decoded together, beside what a full cache could hold in the same
    bytes."""

    arena_bytes: int
    running: int
    """The most that ran together."""
    reserved: int
    """Sequences of a full cache that reserves the longest prompt and completion for each, as policy
    `full` does."""
    paged: int
    """Sequences of a full cache without waste: each holds just its own tokens, averaged over its
    life."""

    @property
    def is_ahead(self) -> bool:
        """Whether more ran together than even the best full cache could hold."""
        return self.running > self.paged


def find_crossover(
    device: DeviceTime | None, *, bytes_per_token: float, mean_tokens: float, max_tokens: int
) -> Crossover | None:
    """None without a sample in which anything ran.

    `mean_tokens`: tokens of a full cache's sequence, averaged over its life. `max_tokens`: tokens
    that the longest sequence may have.
    """
    if device is None or device.peak_running == 0:
        return None
    return Crossover(
        arena_bytes=device.arena_bytes,
        running=device.peak_running,
        reserved=int(device.arena_bytes // (max_tokens * bytes_per_token)),
        paged=int(device.arena_bytes // (mean_tokens * bytes_per_token)),
    )
