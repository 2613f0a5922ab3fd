"""A line chart in its own file: lines with points, and with intervals if they are known.

Knows nothing about what is drawn. The page's charts use canvas.py.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

#: Further lines repeat the colours in another style.
_NUM_COLOURS = 10


@dataclass(frozen=True)
class Series:
    """One line: its (x, y) points in order, and the (low, high) around each y if known."""

    name: str
    points: tuple[tuple[float, float], ...]
    intervals: tuple[tuple[float, float], ...] | None = None


def line_chart(
    series: Sequence[Series], *, title: str, x_label: str, y_label: str, is_log_x: bool = False
) -> str:
    """An SVG document."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    for number, line in enumerate(series):
        style: dict[str, Any] = {
            "color": f"C{number % _NUM_COLOURS}",
            "linestyle": "-" if number < _NUM_COLOURS else "--",
        }
        xs, ys = zip(*line.points, strict=True) if line.points else ((), ())
        axes.plot(xs, ys, label=line.name, marker="o", markersize=4, **style)
        if line.intervals is not None:
            lows, highs = zip(*line.intervals, strict=True)
            axes.vlines(xs, lows, highs, color=style["color"], linewidth=1, alpha=0.6)
    if is_log_x:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_locator(NullLocator())
    axes.set(title=title, xlabel=x_label, ylabel=y_label)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", frameon=False)
    return to_svg(figure)


def to_svg(figure: Figure) -> str:
    """An SVG document. Text stays text, and the same figure gives the same file."""
    stream = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "dynts", "text.parse_math": False}):
        figure.savefig(stream, format="svg", metadata={"Date": None})
    return stream.getvalue()
