"""Many small curves side by side in one file, each on its own scale, to compare their shapes.

Knows nothing about what is drawn.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dynts_batch.report.charts.canvas import INK, MUTED, SERIES, SETTINGS, WIDTH, svg
from dynts_batch.report.charts.document import document

_NUM_COLUMNS = 4
_RED = 4
#: Inches.
_PANEL_HEIGHT, _AROUND = 1.2, 0.9


@dataclass(frozen=True)
class Panel:
    """One curve through its (x, y) points, and the text above it. `marks`: x of vertical lines."""

    name: str
    points: tuple[tuple[float, float], ...]
    marks: tuple[float, ...] = ()


def panel_grid(panels: Sequence[Panel], *, title: str, x_label: str) -> str:
    """An SVG document. Panels with marks stand out."""
    num_columns = min(_NUM_COLUMNS, len(panels))
    num_rows = -(-len(panels) // num_columns)
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(WIDTH, num_rows * _PANEL_HEIGHT + _AROUND), layout="constrained")
        grid = figure.subplots(num_rows, num_columns, sharex=True, squeeze=False)
        for axes, panel in zip(grid.flat, panels, strict=False):
            _draw(axes, panel)
        for axes in grid.flat[len(panels) :]:
            axes.remove()
        lines = [line for part in title.split("\n") for line in textwrap.wrap(part, 62)]
        figure.suptitle("\n".join(lines), fontsize=10, x=0.02, ha="left")
        figure.supxlabel(x_label, fontsize=9.5, color=MUTED)
        return document(svg(figure, title))


def _draw(axes: Axes, panel: Panel) -> None:
    color = SERIES[_RED] if panel.marks else SERIES[0]
    xs, ys = zip(*panel.points, strict=True)
    axes.fill_between(xs, ys, color=color, alpha=0.25, linewidth=0)
    axes.plot(xs, ys, color=color, linewidth=1)
    for x in panel.marks:
        axes.axvline(x, color=INK, linewidth=1, linestyle="--")
    axes.set_title(panel.name, fontsize=8, fontweight="bold" if panel.marks else "normal")
    axes.set_yticks([])
    axes.locator_params(axis="x", nbins=2)
    axes.tick_params(labelsize=8)
