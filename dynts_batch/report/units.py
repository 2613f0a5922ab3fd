"""How quantities are written for people."""

from __future__ import annotations

import math

#: A ratio below it reads better turned round.
MUCH_LESS = 0.1


def duration(seconds: float) -> str:
    """h:mm:ss, or m:ss below an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def size(num_bytes: int) -> str:
    """Bytes in the unit that leaves at most four digits before the point."""
    value = float(num_bytes)
    for unit in ("bytes", "KiB", "MiB"):
        if value < 1024:
            return f"{value:,.0f} {unit}" if unit == "bytes" else f"{value:,.1f} {unit}"
        value /= 1024
    return f"{value:,.1f} GiB"


def counted(number: int, noun: str) -> str:
    """Such as "1 worker" and "2 workers"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def byte_scale(num_bytes: float) -> tuple[float, str]:
    """A divisor and its unit, so that `num_bytes` has at most four digits."""
    units = ("bytes", "KiB", "MiB", "GiB", "TiB")
    power = min(int(math.log(max(abs(num_bytes), 1), 1024)), len(units) - 1)
    return 1024.0**power, units[power]


def count_scale(usd: float) -> tuple[int, str]:
    """How many things to price together, and the words for it, so that dollars have no leading
    zeros."""
    if usd == 0 or abs(usd) >= 0.01:
        return 1, ""
    return (1_000, "1,000 ") if abs(usd) >= 1e-4 else (1_000_000, "million ")


def money(usd: float) -> str:
    """Dollars: three significant digits below one dollar, whole cents above."""
    if abs(usd) >= 1 or usd == 0:
        return f"${usd:,.2f}"
    decimals = min(12, 2 - math.floor(math.log10(abs(usd))))
    return f"${usd:.{decimals}f}"


def energy(joules: float) -> str:
    """Joules, or kWh if there are many."""
    return f"{joules:,.3g} J" if joules < 3.6e5 else f"{joules / 3.6e6:,.3g} kWh"


def times(ratio: float) -> str:
    """What to multiply by: as a fraction if decimals would not show it."""
    return f"{ratio:.2f}x" if ratio >= MUCH_LESS else f"1/{1 / ratio:,.0f} of"


def percent(share: float | None) -> str:
    return "n/a" if share is None else f"{share:.1%}"
