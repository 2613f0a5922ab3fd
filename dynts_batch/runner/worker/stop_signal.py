"""Turns the first Ctrl-C or SIGTERM into a wish to stop, so that a run can store what it has."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopSignal:
    """Whether a signal came, and which."""

    def __init__(self) -> None:
        self.number: int | None = None

    @property
    def is_set(self) -> bool:
        return self.number is not None

    def _set(self, number: int, frame: FrameType | None) -> None:
        if self.number is not None:  # asked twice: at once, then
            raise KeyboardInterrupt
        self.number = number


@contextmanager
def catch_stop_signals() -> Iterator[StopSignal]:
    """Catch SIGINT and SIGTERM in the block. Main thread only, and after `ray.init`, which takes
    SIGTERM for itself."""
    stop = StopSignal()
    former = {number: signal.signal(number, stop._set) for number in _SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


_SIGNALS = (signal.SIGINT, signal.SIGTERM)
