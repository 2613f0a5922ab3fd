"""Times of day: "1:58 am", "5 p.m.", "13:58", "noon". A time is no ratio and no number."""

from __future__ import annotations

import re
from dataclasses import dataclass

_HALF = r"(?P<half>[ap])\.?[ ~]*m\b\.?"
_CLOCK = re.compile(
    rf"(?:(?P<hour>\d{{1,2}}):(?P<minute>[0-5]\d)(?::(?P<second>[0-5]\d))?"
    rf"(?:[ ~]*(?:{_HALF}|(?P<word>noon|midnight)))?"
    rf"|(?P<only>\d{{1,2}})[ ~]*{_HALF.replace('half', 'its_half')})",
    re.IGNORECASE,
)
_WORDS = {"noon": 12 * 3600, "midnight": 0}
_HALF_DAY_S = 12 * 3600


@dataclass(frozen=True, slots=True)
class Clock:
    """A time of day in seconds since midnight. Without am or pm it is read on the 24-hour clock."""

    seconds: int


def read_clock(text: str) -> Clock | None:
    """The time of day that typeset `text` states; None if it states none."""
    if text.lower() in _WORDS:
        return Clock(_WORDS[text.lower()])
    time = _CLOCK.fullmatch(text)
    if time is None:
        return None
    hour, half = int(time["hour"] or time["only"]), (time["half"] or time["its_half"] or "").lower()
    if hour > 24 or (half and not 1 <= hour <= 12):
        return None
    if half:
        hour = hour % 12 + (12 if half == "p" else 0)
    elif (time["word"] or "").lower() == "midnight":
        hour %= 12
    return Clock(3600 * (hour % 24) + 60 * int(time["minute"] or 0) + int(time["second"] or 0))
