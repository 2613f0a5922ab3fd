"""Arrow's dates, times and durations in ISO 8601, of any year. Python's own end at year 9999.

Values are whole numbers of a unit, as Arrow stores them. Knows nothing about arrays.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np

PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_DAY_S = 86_400


def iso_date(days: int) -> str:
    """The day that is `days` after 1970-01-01."""
    return str(np.datetime64(days, "D"))


def iso_time(value: int, unit: str) -> str:
    """The time of day, without trailing zeros of a second."""
    seconds, fraction = divmod(value, PER_SECOND[unit])
    minutes, second = divmod(seconds, 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour:02d}:{minute:02d}:{second:02d}{_fraction(fraction, unit)}"


def iso_timestamp(value: int, unit: str, zone: str | None) -> str:
    """Date and time in `zone`; in UTC if the zone is unknown."""
    offset = None if zone is None else _offset(value // PER_SECOND[unit], zone)
    if offset is not None:
        value += round(offset.total_seconds()) * PER_SECOND[unit]
    days, rest = divmod(value, _DAY_S * PER_SECOND[unit])
    text = f"{iso_date(days)}T{iso_time(rest, unit)}"
    if offset is None:
        return text
    sign = "-" if offset < timedelta(0) else "+"
    distance = iso_time(round(abs(offset).total_seconds()), "s")
    # Before there were time zones, offsets had seconds.
    return f"{text}{sign}{distance.removesuffix(':00')}"


def iso_duration(value: int, unit: str) -> str:
    """Days, hours, minutes and seconds, as P1DT2H3M4.5S."""
    return f"{'-' if value < 0 else ''}P{_parts(abs(value), unit) or 'T0S'}"


def iso_interval(months: int, days: int, nanoseconds: int) -> str:
    """Months, days and a time. Months and days have no fixed length, so none is carried over."""
    calendar = "".join(
        f"{count}{letter}" for count, letter in ((months, "M"), (days, "D")) if count
    )
    sign = "-" if nanoseconds < 0 else ""
    clock = "" if not nanoseconds else f"T{sign}{_clock(abs(nanoseconds), 'ns')}"
    return f"P{calendar}{clock}" if calendar or clock else "PT0S"


def _parts(value: int, unit: str) -> str:
    days, rest = divmod(value, _DAY_S * PER_SECOND[unit])
    return (f"{days}D" if days else "") + (f"T{_clock(rest, unit)}" if rest else "")


def _clock(value: int, unit: str) -> str:
    seconds, fraction = divmod(value, PER_SECOND[unit])
    minutes, second = divmod(seconds, 60)
    hours, minute = divmod(minutes, 60)
    text = "".join(f"{count}{letter}" for count, letter in ((hours, "H"), (minute, "M")) if count)
    return f"{text}{second}{_fraction(fraction, unit)}S" if second or fraction else text


def _fraction(value: int, unit: str) -> str:
    digits = len(str(PER_SECOND[unit])) - 1
    return f".{value:0{digits}d}".rstrip("0") if value else ""


def _offset(second: int, zone: str) -> timedelta:
    try:
        moment = datetime.fromtimestamp(second, UTC).astimezone(_zone(zone))
    except (OverflowError, ValueError, OSError):  # before the year 1 or after 9999
        return timedelta(0)
    return moment.utcoffset() or timedelta(0)


@lru_cache
def _zone(name: str) -> tzinfo:
    if name[:1] in "+-" and name[3:4] == ":":
        offset = timedelta(hours=int(name[1:3]), minutes=int(name[4:6]))
        return timezone(-offset if name[0] == "-" else offset)
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        return UTC
