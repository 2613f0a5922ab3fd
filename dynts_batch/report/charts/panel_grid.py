"""Many small curves side by side in one file, each on its own scale, to compare their shapes.

Knows nothing about what is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from dynts_batch.report.charts.line_chart import to_svg

_NUM_COLUMNS = 6
#: Inches.
_PANEL_WIDTH, _PANEL_HEIGHT, _AROUND = 1.6, 1.4, 0.9


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
    size = max(5.0, num_columns * _PANEL_WIDTH), num_rows * _PANEL_HEIGHT + _AROUND
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(num_rows, num_columns, sharex=True, squeeze=False)
    for axes, panel in zip(grid.flat, panels, strict=False):
        colour = "C3" if panel.marks else "C0"
        xs, ys = zip(*panel.points, strict=True)
        axes.fill_between(xs, ys, color=colour, alpha=0.25, linewidth=0)
        axes.plot(xs, ys, color=colour, linewidth=1)
        for x in panel.marks:
            axes.axvline(x, color="black", linewidth=1, linestyle="--")
        axes.set_title(panel.name, fontsize=8, fontweight="bold" if panel.marks else "normal")
        axes.set_yticks([])
        axes.locator_params(axis="x", nbins=2)
        axes.tick_params(labelsize=8)
    for axes in grid.flat[len(panels) :]:
        axes.remove()
    figure.suptitle(title, fontsize=10)
    figure.supxlabel(x_label, fontsize=9)
    return to_svg(figure)
