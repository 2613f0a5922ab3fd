"""A line chart as SVG text: axes, lines with points, intervals, a legend. Knows nothing about what is drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

_WIDTH, _HEIGHT = 720, 440
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 170, 36, 48
_COLOURS = (
    *("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#e377c2"),
    *("#7f7f7f", "#bcbd22", "#003f5c", "#a05195", "#665191", "#2f4b7c"),
)


@dataclass(frozen=True)
class Series:
    """One line: its (x, y) points in order, and for some of them the (low, high) of an interval around y."""

    name: str
    points: tuple[tuple[float, float], ...]
    intervals: tuple[tuple[float, float] | None, ...] = ()


def line_chart(series: Sequence[Series], *, title: str, x_label: str, y_label: str) -> str:
    """An SVG document. Axes span the data; both start at zero where the data come near it."""
    xs = [x for line in series for x, _ in line.points]
    ys = [y for line in series for _, y in line.points]
    ys += [end for line in series for interval in line.intervals if interval for end in interval]
    across, up = _Axis(xs, _LEFT, _WIDTH - _RIGHT), _Axis(ys, _HEIGHT - _BOTTOM, _TOP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif"'
        ' font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        _text(_LEFT, 20, title, size=14),
        *_grid(across, up),
        _text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 10, x_label, anchor="middle"),
        f'<g transform="rotate(-90 16 {_HEIGHT / 2})">'
        f"{_text(16, _HEIGHT / 2, y_label, anchor='middle')}</g>",
    ]
    for number, line in enumerate(series):
        parts += _line(line, number, across, up)
    return "\n".join([*parts, "</svg>\n"])


class _Axis:
    """Maps values to pixels between `start` and `end`."""

    def __init__(self, values: Sequence[float], start: float, end: float) -> None:
        low, high = min(values, default=0.0), max(values, default=1.0)
        if 0 <= low < 0.5 * high:
            low = 0.0
        if high == low:
            low, high = low - 0.5, high + 0.5
        step = 10 ** math.floor(math.log10((high - low) / 2))
        step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= 6)
        first, last = math.floor(low / step), math.ceil(high / step)
        self.ticks = [n * step for n in range(first, last + 1)]
        self._low, self._high, self._start, self._end = first * step, last * step, start, end

    def __call__(self, value: float) -> float:
        share = (value - self._low) / (self._high - self._low)
        return self._start + share * (self._end - self._start)


def _grid(across: _Axis, up: _Axis) -> list[str]:
    parts = []
    for tick in across.ticks:
        parts.append(_stroke(across(tick), _TOP, across(tick), _HEIGHT - _BOTTOM, "#eee"))
        parts.append(_text(across(tick), _HEIGHT - _BOTTOM + 16, f"{tick:g}", anchor="middle"))
    for tick in up.ticks:
        parts.append(_stroke(_LEFT, up(tick), _WIDTH - _RIGHT, up(tick), "#eee"))
        parts.append(_text(_LEFT - 6, up(tick) + 4, f"{round(tick, 10):g}", anchor="end"))
    return parts


def _line(line: Series, number: int, across: _Axis, up: _Axis) -> list[str]:
    colour = _COLOURS[number % len(_COLOURS)]
    # Colours come again after a round: dashes tell the second from the first.
    dash = ' stroke-dasharray="5 3"' if number >= len(_COLOURS) else ""
    path = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in line.points)
    parts = [f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>']
    for x, y in line.points:
        parts.append(f'<circle cx="{across(x):.1f}" cy="{up(y):.1f}" r="3" fill="{colour}"/>')
    for (x, _), interval in zip(line.points, line.intervals, strict=False):
        if interval is not None:
            low, high = (up(end) for end in interval)
            parts.append(_stroke(across(x), low, across(x), high, colour))
    top = _TOP + 16 * number
    left = _WIDTH - _RIGHT + 14
    parts.append(f'<rect x="{left}" y="{top}" width="12" height="4" fill="{colour}"/>')
    parts.append(_text(left + 18, top + 6, line.name))
    return parts


def _stroke(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'


def _text(x: float, y: float, text: str, *, size: int = 12, anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}">'
        f"{escape(text)}</text>"
    )
