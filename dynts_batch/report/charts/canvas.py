"""The canvas of the page's charts: matplotlib, as SVG in the page's colours.

Why matplotlib: its SVG needs no script, so a page of charts is small, prints, and cannot break in a
browser. Colours are placeholders that become CSS variables, and text stays text. So one drawing
serves light, dark and print.

Knows nothing about runs. Labels are untrusted: they are drawn, never parsed.
"""

from __future__ import annotations

import io
import re
from html import escape

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

NUM_SERIES = 8

#: Matplotlib draws with these colours. CSS variables take their place.
INK, MUTED, _GRID, RIGHT, WRONG, OTHER = (f"#fe00{i:02x}" for i in range(6))
SERIES = [f"#fe01{i:02x}" for i in range(NUM_SERIES)]
_VARIABLES = dict(
    zip(
        (INK, MUTED, _GRID, RIGHT, WRONG, OTHER),
        ("ink", "muted", "grid", "right", "wrong", "other"),
        strict=True,
    )
) | {color: f"series-{i}" for i, color in enumerate(SERIES)}

SETTINGS = {
    "svg.fonttype": "none", "svg.hashsalt": "dynts",
    "text.parse_math": False, "axes.formatter.use_mathtext": False,
    "font.size": 10, "axes.titlesize": 10, "axes.labelsize": 9.5, "legend.fontsize": 9,
    "text.color": INK, "axes.labelcolor": MUTED, "axes.edgecolor": _GRID, "xtick.color": MUTED,
    "ytick.color": MUTED, "grid.color": _GRID, "grid.linewidth": 0.7, "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.8,
    "legend.frameon": False,
    "xtick.major.size": 0, "ytick.major.size": 0, "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "figure.facecolor": "none", "axes.facecolor": "none", "savefig.facecolor": "none",
}  # fmt: skip

#: Share of the axes above and below the data, so that no marker is cut.
EDGE = 0.04
_LEAST_SPAN = 0.2

WIDTH, HEIGHT = 5.2, 3.3  # inches: narrow, so that the labels stay readable on a phone


def new_figure(height: float = HEIGHT) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.add_subplot()


def legend(axes: Axes) -> None:
    axes.figure.legend(
        loc="outside upper left", ncols=3, handlelength=1.2, columnspacing=1.2, borderpad=0
    )


def thousands(axes: Axes) -> None:
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.xaxis.set_major_locator(MaxNLocator(5))


def share_axis(axes: Axes, low: float, high: float) -> None:
    """A y axis of shares in percent, from `low` to `high` or further.

    It never spans less than 20 points. In a smaller range luck would look like a difference.
    """
    span = max(high - low, _LEAST_SPAN)
    low = min(max(0.0, (low + high - span) / 2), 1 - span)
    axes.set_ylim(low - EDGE * span, low + span + EDGE * span)
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:.0%}"))


def short(label: str) -> str:
    return label if len(label) <= 28 else f"{label[:27]}\u2026"


def svg(figure: Figure, title: str) -> str:
    """`figure` as an SVG element: named for screen readers, as wide as its place.

    The same figure gives the same text, ids included.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    for color, name in _VARIABLES.items():
        text = text.replace(color, f"var(--{name})")
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    return text.replace("<svg ", f'<svg role="img" aria-label="{escape(title)}" ', 1)


def with_own_ids(chart: str, prefix: str) -> str:
    """`chart`, so that its ids are no other chart's on the same page."""
    chart = re.sub(r'\bid="', f'id="{prefix}', chart)
    return re.sub(r'(url\(|xlink:href=")#', rf"\1#{prefix}", chart)


def nothing(why: str) -> str:
    """What stands in place of an empty chart."""
    return f'<p class="nothing">n/a: {why}</p>'
