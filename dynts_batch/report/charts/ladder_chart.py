"""A tuning as a picture: each candidate's loss against its memory, and how the bets on it went.

Knows nothing about what a candidate is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from dynts_batch.report.charts.canvas import INK, SETTINGS, WIDTH, svg
from dynts_batch.report.charts.document import document
from dynts_batch.report.charts.line_chart import style_of

_HEIGHT = 6.2  # inches
#: Wealth below that is lost: the lines end in a band.
_LEAST_WEALTH = 1e-3
_LIMIT = {"color": INK, "linewidth": 1.1, "linestyle": (0, (5, 3))}


@dataclass(frozen=True)
class Bet:
    """One candidate."""

    name: str
    memory: float
    """In percent of the full cache's."""
    loss: float
    """In points, as are the bounds of it."""
    bounds: tuple[float, float]
    log_wealth: np.ndarray
    """After each question, up to the verdict."""
    is_certified: bool


def ladder_chart(bets: Sequence[Bet], *, most_loss: float, delta: float, title: str) -> str:
    """An SVG document. `most_loss` in points; a bet is won at a wealth of 1 / `delta`."""
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(WIDTH, _HEIGHT), layout="constrained")
        losses, wealths = figure.subplots(2, 1)
        for number, bet in enumerate(bets):
            _draw(losses, wealths, bet, number)
        losses.axhline(most_loss, **_LIMIT)
        losses.set_xlabel("KV memory of a sequence, % of the full cache's")
        losses.set_title(
            "Points lost against the full cache\n"
            "filled: certified to lose less than the dashed line",
            loc="left",
        )
        wealths.axhline(1 / delta, **_LIMIT)
        wealths.set(xlabel="questions", yscale="log")
        wealths.set_title(
            "Wealth of the bet that it loses less\ncertified if it reaches the dashed line",
            loc="left",
        )
        wealths.yaxis.set_major_formatter("{x:g}")
        wealths.yaxis.set_minor_formatter(NullFormatter())
        if bets:
            figure.legend(loc="outside lower left", ncols=2)
        figure.suptitle(title, fontsize=10.5, fontweight="bold", x=0.02, ha="left")
        return document(svg(figure, title))


def _draw(losses: Axes, wealths: Axes, bet: Bet, number: int) -> None:
    style = style_of(number)
    low, high = (bound - bet.loss for bound in bet.bounds)
    losses.errorbar(
        bet.memory, bet.loss, yerr=[[max(0.0, -low)], [max(0.0, high)]], label=bet.name, capsize=3,
        markerfacecolor=style["color"] if bet.is_certified else "none", **style,
    )  # fmt: skip
    path = np.maximum(np.exp(np.minimum(bet.log_wealth, 700.0)), _LEAST_WEALTH)
    line = {name: style[name] for name in ("color", "linestyle", "linewidth")}
    wealths.plot(np.arange(len(path) + 1), [1.0, *path], **line)
