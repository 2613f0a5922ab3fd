"""Running figures of a sampled quantity in constant memory: peak, mean over time, energy."""

from __future__ import annotations


class Gauge:
    """Peak and mean of a quantity sampled at uneven moments.

    The mean weighs by time (trapezoid rule), so samples taken on demand do not skew it. None is a
    gap: it adds nothing, and no value is assumed for the time around it.
    """

    def __init__(self) -> None:
        self.peak: float | None = None
        self.integral = 0.0
        """Value x seconds over the time without gaps."""
        self.is_gapless = True
        self._covered_s = 0.0
        self._last: tuple[float, float | None] | None = None

    def add(self, t_s: float, value: float | None) -> None:
        """Record `value` at time `t_s` (seconds), which never decreases."""
        if value is None:
            self.is_gapless = False
        else:
            self.peak = value if self.peak is None else max(self.peak, value)
            if self._last is not None and self._last[1] is not None:
                self.integral += (t_s - self._last[0]) * (self._last[1] + value) / 2
                self._covered_s += t_s - self._last[0]
        self._last = t_s, value

    @property
    def mean(self) -> float | None:
        """Mean over the time covered. With one sample its value; without any None."""
        return self.integral / self._covered_s if self._covered_s > 0 else self.peak


class Energy:
    """Joules since the first sample: from the hardware counter if there is one, else from power.

    `joules` is None if the truth is not known. A gap in the counter heals, because the counter goes
    on meanwhile. A gap in power does not. A counter that runs backwards was restarted (driver
    reload, wrap); for that one interval power x time stands in.
    """

    def __init__(self, power: Gauge, counter_j: float | None) -> None:
        """`power` holds the first sample in watts, `counter_j` is the first counter reading."""
        self._power = power
        self._counter_j = counter_j  # the latest known; None: power measures this device
        self._power_j = 0.0  # power x time up to that reading
        self._counted_j = 0.0
        self.joules: float | None = None
        self.add(counter_j)

    def add(self, counter_j: float | None) -> None:
        """Record a counter reading (J), after the same sample's power went into its gauge."""
        if self._counter_j is not None and counter_j is not None:
            self._count(counter_j - self._counter_j, counter_j)
        if self._counter_j is None:
            self.joules = self._power.integral if self._power.is_gapless else None
        else:
            self.joules = self._counted_j if counter_j is not None else None

    def _count(self, delta_j: float, counter_j: float) -> None:
        if delta_j < 0 and not self._power.is_gapless:
            self._counter_j = None  # neither figure is complete: unknown from here on
            return
        self._counted_j += delta_j if delta_j >= 0 else self._power.integral - self._power_j
        self._counter_j, self._power_j = counter_j, self._power.integral
