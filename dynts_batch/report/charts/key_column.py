"""The key of a line chart: a column beside it, where each name stands near the end of its line.

Knows nothing about what the lines mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.textpath import TextPath

from dynts_batch.report.charts.canvas import INK

#: Points: the text, its lines, the sample of a line before it, and the spaces around.
_FONT, _LINE, _SAMPLE, _SPACE, _GAP = 9.5, 11.5, 22.0, 6.0, 3.0
_MAX_CHARS = 22


@dataclass(frozen=True)
class Entry:
    """One line of the chart: its name, the y of its end, and what it is drawn with."""

    name: str
    end: float
    style: dict[str, Any]

    @property
    def text(self) -> str:
        """The name, broken before a "+" so that it fits."""
        lines = [""]
        for i, part in enumerate(self.name.split("+")):
            piece = f"+{part}" if i else part
            if lines[-1] and len(lines[-1] + piece) > _MAX_CHARS:
                lines.append("")
            lines[-1] += piece
        return "\n".join(lines)

    @property
    def height(self) -> float:
        return _GAP + _LINE * (1 + self.text.count("\n"))


def key_size(entries: Sequence[Entry]) -> tuple[float, float]:
    """Width and least height of the column, in points."""
    lines = [line for entry in entries for line in entry.text.split("\n") if line]
    widths = [TextPath((0, 0), line, size=_FONT).get_extents().width for line in lines]
    return _SAMPLE + 3 * _SPACE + max(widths, default=0.0), sum(entry.height for entry in entries)


def draw_key(axes: Axes, entries: Sequence[Entry], chart: Axes) -> None:
    """Fill the empty `axes` beside `chart`, which has its final place and limits."""
    width, height = (72 / axes.figure.dpi * side for side in (axes.bbox.width, axes.bbox.height))
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.axis("off")
    low, high = chart.get_ylim()
    entries = sorted(entries, key=lambda entry: entry.end, reverse=True)[::-1]  # first on top
    wanted = [height * (entry.end - low) / (high - low) for entry in entries]
    places = spread(wanted, [entry.height for entry in entries], height)
    for entry, place in zip(entries, places, strict=True):
        left, right = _SPACE, _SPACE + _SAMPLE
        style = {**entry.style, "clip_on": False}
        axes.plot([left, (left + right) / 2, right], [place] * 3, markevery=[1], **style)
        axes.text(
            right + _SPACE, place, entry.text, color=INK, va="center", fontsize=_FONT,
            linespacing=_LINE / _FONT,
        )  # fmt: skip


def spread(wanted: Sequence[float], heights: Sequence[float], space: float) -> np.ndarray:
    """The middles of boxes of `heights` that lie between 0 and `space` and do not overlap.

    Each is as near to what is wanted as the others let it be: the sum of squared distances is
    least. `wanted` ascends. If `space` is too small for all, they stick out above.
    """
    offsets = np.cumsum(heights) - np.asarray(heights) / 2
    # Without what is below each, the middles have only to ascend: pool neighbours that do not.
    pools: list[tuple[float, int]] = []
    for start in np.asarray(wanted) - offsets:
        mean, count = float(start), 1
        while pools and pools[-1][0] > mean:
            before, num = pools.pop()
            mean, count = (mean * count + before * num) / (count + num), count + num
        pools.append((mean, count))
    starts = np.repeat([mean for mean, _ in pools], [count for _, count in pools])
    return np.clip(starts, 0, max(0.0, space - sum(heights))) + offsets
