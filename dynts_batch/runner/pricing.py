"""What one row cost, its share of the energy and its price in dollars,
and what a worker costs that holds a device."""

from __future__ import annotations

import time

from dynts_batch.config import CostConfig

_JOULES_PER_KWH = 3.6e6
#: Relative error of a sum of a million seconds or so; float64 adds 1e-16 at each.
_ROUNDING = 1e-12


class EnergyShares:
    """Deals out a device's energy to the rows that end, in proportion to their device time.

    A row gets its part of what is not dealt out yet. So nothing is counted twice, and once all
    sequences have ended the shares sum to the total, idling included.
    """

    def __init__(self) -> None:
        self._seen_j = 0.0
        self._is_known = True
        self._owned_j = 0.0
        self._undealt_j = 0.0
        self._dealt_s = 0.0

    @property
    def owned_j(self) -> float | None:
        """This worker's part of the joules so far, dealt out or not; None if unknown."""
        return self._owned_j if self._is_known else None

    def update(self, energy_j: float | None, *, device_share: float) -> None:
        """The device's joules so far, and this worker's part of the device since the last update.

        None is a gap: shares are unknown until the count is back, and then include what it missed.
        """
        self._is_known = energy_j is not None
        if energy_j is not None:
            share_j = (energy_j - self._seen_j) * device_share
            self._owned_j += share_j
            self._undealt_j += share_j
            self._seen_j = energy_j

    def take(self, device_s: float, *, busy_s: float) -> float | None:
        """The joules of a row that took `device_s` of the device's `busy_s` seconds so far."""
        open_s = busy_s - self._dealt_s
        self._dealt_s += device_s
        if not self._is_known:
            return None
        if device_s <= 0:
            return 0.0
        # Seconds that two running sums of this size cannot tell apart belong to nobody else.
        is_last = open_s - device_s <= _ROUNDING * busy_s
        share = self._undealt_j * (1.0 if is_last else device_s / open_s)
        self._undealt_j -= share
        return share


class HeldTime:
    """How long a worker holds its device: while it loads, works and idles, since this was made.

    That is the time on the clock, or what the engine counts where it is ahead of it:
    simulated time.
    """

    def __init__(self) -> None:
        self._updated_s = time.monotonic()
        self._busy_s = 0.0
        self._device_s = 0.0

    def update(self, *, busy_s: float, device_share: float) -> float:
        """Device seconds until now; `busy_s` are the engine's so far, `device_share` this worker's
        part of the device since the last update."""
        now_s = time.monotonic()
        passed_s = max(now_s - self._updated_s, busy_s - self._busy_s)
        self._device_s += passed_s * device_share
        self._updated_s, self._busy_s = now_s, busy_s
        return self._device_s


def price(device_s: float, energy_j: float | None, cost: CostConfig) -> float | None:
    """Dollars of a row; None if no price is configured or a priced quantity is unknown."""
    if cost.usd_per_gpu_hour is None and cost.usd_per_kwh is None:
        return None
    usd = device_s * (cost.usd_per_gpu_hour or 0.0) / 3600
    if cost.usd_per_kwh is not None:
        if energy_j is None:
            return None
        usd += energy_j / _JOULES_PER_KWH * cost.usd_per_kwh
    return usd
