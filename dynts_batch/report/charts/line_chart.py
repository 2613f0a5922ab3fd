"""A line chart in its own file: lines with points, and with intervals if they are known.

Colour, marker and dashes tell the lines apart, and a key beside them has their names. Knows nothing
about what is drawn. The page's charts use canvas.py alone.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator
from matplotlib.transforms import ScaledTranslation

from dynts_batch.report.charts.canvas import (
    EDGE,
    INK,
    MUTED,
    SERIES,
    SETTINGS,
    WIDTH,
    share_axis,
    svg,
)
from dynts_batch.report.charts.document import document
from dynts_batch.report.charts.key_column import Entry, draw_key, key_size

#: One more than there are colours. So 72 lines pass before a pair comes again.
_MARKERS = "os^DvPX<>"
_DASHES = ("-", (0, (4, 2)), (0, (1, 1.5)))
_LEVEL_STYLE: dict[str, Any] = {"color": INK, "linestyle": (0, (5, 3)), "linewidth": 1.1}
#: With more lines their intervals would hide one another.
MAX_INTERVALS = len(SERIES)

#: Points.
_LEFT, _BELOW, _LINE, _HEIGHT = 40.0, 38.0, 12.5, 210.0
#: Points between the bars of two lines at the same x.
_STEP = 5.0
#: The least share of the axes beside the data.
_MARGIN = 0.07
_MAX_TICKS = 5


@dataclass(frozen=True)
class Series:
    """One line: its (x, y) points in order, and the (low, high) around each y if known."""

    name: str
    points: tuple[tuple[float, float], ...]
    intervals: tuple[tuple[float, float], ...] | None = None


@dataclass(frozen=True)
class Level:
    """A horizontal line to compare with."""

    name: str
    y: float


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    note: str,
    x_label: str,
    level: Level | None = None,
    is_log_x: bool = False,
    is_share: bool = False,
) -> str:
    """An SVG document. `title` says what y is; `note` stands below it.

    `is_share`: y is a share of 1, shown in percent. Intervals are shown for up to `MAX_INTERVALS`
    series. The same series give the same file.
    """
    series = [line for line in series if line.points]
    if len(series) > MAX_INTERVALS:
        series = [Series(line.name, line.points) for line in series]
    with mpl.rc_context(SETTINGS):
        entries = [Entry(level.name, level.y, _LEVEL_STYLE)] if level is not None else []
        entries += [
            Entry(line.name, line.points[-1][1], style_of(number))
            for number, line in enumerate(series)
        ]
        figure, axes, key = _figure(title, note, entries)
        axes.set_xlabel(x_label, loc="left")
        _scale_x(axes, series, is_log=is_log_x)
        _scale_y(axes, series, level, is_share=is_share)
        for number, line in enumerate(series):
            _draw(axes, line, style_of(number), number - (len(series) - 1) / 2)
        if level is not None:
            axes.axhline(level.y, **_LEVEL_STYLE)
        draw_key(key, entries, axes)
        return document(svg(figure, title))


def style_of(number: int) -> dict[str, Any]:
    """What sets the line with that number apart from the others."""
    return {
        "color": SERIES[number % len(SERIES)],
        "marker": _MARKERS[number % len(_MARKERS)],
        "linestyle": _DASHES[number // len(SERIES) % len(_DASHES)],
        "markersize": 5,
        "linewidth": 1.6,
    }


def _figure(title: str, note: str, entries: Sequence[Entry]) -> tuple[Figure, Axes, Axes]:
    """A figure, the chart's axes and the key's beside them. It is as high as the key needs."""
    notes = textwrap.wrap(note, 66)
    key_width, key_height = key_size(entries)
    chart_height = max(_HEIGHT, key_height)
    width, height = 72 * WIDTH, _BELOW + chart_height + _LINE * (2 + len(notes))
    figure = Figure(figsize=(WIDTH, height / 72))
    bottom, share, end = _BELOW / height, chart_height / height, 1 - key_width / width
    axes = figure.add_axes((_LEFT / width, bottom, end - _LEFT / width, share))
    key = figure.add_axes((end, bottom, 1 - end, share))
    top, left = 1 - 5 / height, 6 / width
    figure.text(left, top, title, va="top", weight="bold", fontsize=10.5)
    figure.text(left, top - _LINE / height, "\n".join(notes), va="top", color=MUTED, fontsize=9.5)
    return figure, axes, key


def _draw(axes: Axes, line: Series, style: dict[str, Any], aside: float) -> None:
    """`aside`: how many steps to the right of its place, so that no bar hides another."""
    xs, ys = zip(*line.points, strict=True)
    shift = _STEP * aside / 72 if line.intervals is not None else 0.0
    place = axes.transData + ScaledTranslation(shift, 0, axes.figure.dpi_scale_trans)
    axes.plot(xs, ys, transform=place, **style)
    for x, interval in zip(xs, line.intervals or (), strict=False):
        axes.plot([x, x], interval, transform=place, color=style["color"], linewidth=1.1)


def _scale_x(axes: Axes, series: Sequence[Series], *, is_log: bool) -> None:
    xs = [x for line in series for x, _ in line.points]
    low, high = min(xs, default=1.0), max(xs, default=1.0)
    share = _beside(axes, sum(line.intervals is not None for line in series))
    if is_log:
        axes.set_xscale("log")
        margin = (high / low) ** share if low < high else 2.0
        axes.set_xlim(low / margin, high * margin)
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    else:
        margin = (high - low) * share if low < high else 1.0
        axes.set_xlim(low - margin, high + margin)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    places = sorted({float(f"{x:.2g}") for x in xs})
    if len(places) <= _MAX_TICKS:
        axes.xaxis.set_major_locator(FixedLocator(places))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.6g}"))


def _beside(axes: Axes, num_aside: int) -> float:
    """The room beside the data on either side, as a share of the data's, for lines that stand
    aside."""
    width = 72 / axes.figure.dpi * axes.bbox.width
    share = max(_MARGIN, (_STEP * (num_aside / 2 + 1)) / width)
    return share / (1 - 2 * share)


def _scale_y(axes: Axes, series: Sequence[Series], level: Level | None, *, is_share: bool) -> None:
    ys = [y for line in series for _, y in line.points] + ([] if level is None else [level.y])
    ys += [end for line in series for interval in line.intervals or () for end in interval]
    low, high = min(ys, default=0.0), max(ys, default=1.0)
    if is_share:
        share_axis(axes, low, high)
    else:
        margin = EDGE * (high - low) or 1.0
        axes.set_ylim(low - margin, high + margin)
        axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
