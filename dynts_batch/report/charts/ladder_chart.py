"""A tuning as a picture: each candidate's loss against its memory, and how the bets on it went.

Knows nothing about what a candidate is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from dynts_batch.report.charts.line_chart import to_svg

_NUM_COLOURS = 10
#: Wealth below that is lost: the lines end in a band.
_LEAST_WEALTH = 1e-3


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
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    losses, wealths = figure.subplots(1, 2)
    for number, bet in enumerate(bets):
        colour = f"C{number % _NUM_COLOURS}"
        low, high = (bound - bet.loss for bound in bet.bounds)
        losses.errorbar(
            bet.memory, bet.loss, yerr=[[max(0.0, -low)], [max(0.0, high)]], label=bet.name,
            color=colour, capsize=3,
            marker="o", markerfacecolor=colour if bet.is_certified else "white",
        )  # fmt: skip
        path = np.maximum(np.exp(np.minimum(bet.log_wealth, 700.0)), _LEAST_WEALTH)
        wealths.plot(np.arange(len(path) + 1), [1.0, *path], color=colour)
    losses.axhline(most_loss, color="black", linewidth=1, linestyle="--")
    losses.set(
        xlabel="KV memory of a sequence, % of the full cache",
        ylabel="points lost against the full cache",
        title="filled: certified to lose less than the dashed line",
    )
    wealths.axhline(1 / delta, color="black", linewidth=1, linestyle="--")
    wealths.set(
        xlabel="questions",
        ylabel="wealth of the bet that it loses less",
        yscale="log",
        title="certified where it reaches the dashed line",
    )
    wealths.yaxis.set_major_formatter("{x:g}")
    wealths.yaxis.set_minor_formatter(NullFormatter())
    for axes in (losses, wealths):
        axes.grid(alpha=0.3)
        axes.title.set_fontsize(10)
    if bets:
        figure.legend(loc="outside right upper", frameon=False)
    figure.suptitle(title, fontsize=11)
    return to_svg(figure)
