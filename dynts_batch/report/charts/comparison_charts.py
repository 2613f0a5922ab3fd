"""The charts that compare runs: a point, a bar or a line for each. Functions return SVG for the
page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import ScaledTranslation

from dynts_batch.report.charts.canvas import (
    HEIGHT,
    INK,
    MUTED,
    NUM_SERIES,
    SERIES,
    SETTINGS,
    new_figure,
    nothing,
    share_axis,
    short,
    svg,
)
from dynts_batch.report.comparison.pairs import Pair
from dynts_batch.report.measures import Measures, Right, right_of
from dynts_batch.report.units import byte_scale, count_scale, money, percent

#: Points between runs of the same memory.
_STEP = 5.0


def accuracy_against(runs: Sequence[Measures], what: Literal["cost", "memory"]) -> str:
    """A point per run: share right, with its interval, against dollars per answer or peak KV bytes.

    The bytes are per sequence.
    """
    is_cost = what == "cost"
    of = {
        run: run.totals.dollars.per_answer if is_cost else run.totals.mean_peak_bytes
        for run in runs
    }
    points = [(x, run) for run, x in of.items() if x is not None and run.right_share is not None]
    if not points:
        return nothing("no run has both prices and judged rows" if is_cost else "no judged rows")
    largest = max(x for x, _ in points)
    factor: float
    if is_cost:
        factor, words = count_scale(largest)
        label = f"US dollars per {words}answer{'s' if words else ''}"
    else:
        divisor, unit = byte_scale(largest)
        factor, label = 1 / divisor, f"peak KV memory of a sequence, {unit}"
    with mpl.rc_context(SETTINGS):
        figure, axes = new_figure()
        axes.set_xlim(0, 1.4 * largest * factor or 1)
        _scale(axes, [run for _, run in points])
        placed: list[tuple[float, float]] = []
        for x, run in sorted(points, key=lambda point: -(point[1].right_share or 0)):
            color = SERIES[list(runs).index(run) % NUM_SERIES]
            _point(axes, run, x * factor, color, placed, step=0.0 if is_cost else _STEP)
        axes.set_ylabel("right answers")
        axes.set_xlabel(label)
        axes.xaxis.set_major_locator(MaxNLocator(6))
        return svg(figure, f"Share of right answers against {what}")


def cost_per_correct(runs: Sequence[Measures]) -> str:
    """A bar per run, the cheapest first, with the interval that follows from the accuracy's."""
    what = right_of(runs)
    priced = [(run.usd_per(what), i) for i, run in enumerate(runs)]
    never = [i for i, run in enumerate(runs) if run.num_right(what) == 0]
    bars = sorted((price, i) for price, i in priced if price is not None)
    if not bars:
        return nothing("no run has both prices and right answers")
    count, words = count_scale(bars[0][0])
    spans = [_price_span(runs[i], price, what) for price, i in bars]
    # A policy that is hardly ever right would squeeze all other bars to nothing: its bar is cut.
    limit = min(max(high for _, high in spans), 12 * bars[0][0]) * count
    with mpl.rc_context(SETTINGS):
        figure, axes = new_figure(height=max(HEIGHT, 0.9 + 0.36 * (len(bars) + len(never))))
        for place, ((price, i), span) in enumerate(zip(bars, spans, strict=True)):
            low, end = (min(amount * count, limit) for amount in span)
            axes.barh(place, min(price * count, limit), height=0.62, color=SERIES[i % NUM_SERIES])
            if low < end:
                axes.plot([low, end], [place, place], color=INK, linewidth=1.1)
            cut = "\N{RIGHTWARDS ARROW} " if price * count > limit else ""
            axes.annotate(
                f"{cut}{money(price * count)}, {percent(runs[i].right_share)} right",
                (end, place),
                xytext=(6, 0), textcoords="offset points", va="center", annotation_clip=False,
            )  # fmt: skip
        for place, _ in enumerate(never, start=len(bars)):
            axes.annotate(
                "never right",
                (0, place),
                xytext=(6, 0),
                textcoords="offset points",
                va="center",
                color=MUTED,
            )
        order = [*(i for _, i in bars), *never]
        axes.set_yticks(range(len(order)), [short(runs[i].label) for i in order], color=INK)
        axes.set_ylim(len(order) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        axes.set_xlim(0, 1.5 * limit)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel(f"US dollars per {words}{what}{'s' if words else ''}")
        return svg(figure, f"Dollars per {what}")


def _price_span(run: Measures, price: float, what: Right) -> tuple[float, float]:
    """`price` at both ends of the accuracy's interval, where that has ends."""
    if what != "right answer" or run.accuracy is None or not run.accuracy.low:
        return price, price
    low, high = (
        run.totals.dollars.per_correct_at(share) or price
        for share in (run.accuracy.high, run.accuracy.low)
    )
    return low, max(price, high)


def differences(pairs: Sequence[Pair]) -> str:
    """A line per pair of runs: the difference in right answers with its interval, beside zero."""
    known = [pair for pair in pairs if pair.found is not None]
    if not known:
        return nothing("no two runs share a judged question")
    with mpl.rc_context(SETTINGS):
        figure, axes = new_figure(height=max(HEIGHT, 0.9 + 0.3 * len(known)))
        axes.axvline(0, color=MUTED, linewidth=1)
        for place, pair in enumerate(known):
            assert pair.found is not None
            found = pair.found.difference
            if found.low is not None and found.high is not None:
                axes.plot(
                    [100 * found.low, 100 * found.high], [place, place], color=INK, linewidth=1.4
                )
            axes.plot([100 * found.mean], [place], "o", color=INK, markersize=6)
        names = [f"{short(pair.b.label)} \u2212 {short(pair.a.label)}" for pair in known]
        axes.set_yticks(range(len(known)), names, color=INK, fontsize=9)
        axes.set_ylim(len(known) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.set_xlim(min(-1.0, axes.get_xlim()[0]), max(1.0, axes.get_xlim()[1]))
        axes.set_xlabel("difference in right answers, percentage points")
        return svg(figure, "Differences in right answers between runs")


def _scale(axes: Axes, runs: Sequence[Measures]) -> None:
    """The y axis, so that it shows the intervals of all `runs`."""
    found = [run.accuracy for run in runs if run.accuracy is not None]
    ends = [end for e in found for end in (e.mean, e.low, e.high) if end is not None]
    share_axis(axes, min(ends), max(ends))


def _point(
    axes: Axes,
    run: Measures,
    x: float,
    color: str,
    placed: list[tuple[float, float]],
    *,
    step: float,
) -> None:
    """Draw `run` at `x`, clear of those at `placed`, as is its label, and add its own place
    to them.

    `step`: points between runs at the same x.
    """
    assert run.accuracy is not None
    mean, low, high = run.accuracy.mean, run.accuracy.low, run.accuracy.high
    (_, right), (bottom, top), y = axes.get_xlim(), axes.get_ylim(), mean
    shift = step * sum(abs(x - other_x) < 0.005 * right for other_x, _ in placed)
    place = axes.transData + ScaledTranslation(shift / 72, 0, axes.figure.dpi_scale_trans)
    if low is not None and high is not None:
        axes.plot([x, x], [low, high], color=color, linewidth=1.4, transform=place)
    axes.plot([x], [mean], "o", color=color, markersize=7, transform=place)
    line = 0.055 * (top - bottom)
    while any(
        abs(y - other_y) < line and abs(x - other_x) < 0.35 * right for other_x, other_y in placed
    ):
        y -= line
    placed.append((x, y))
    axes.annotate(
        short(run.label),
        (x, y),
        xytext=(8 + 3 * step, 0),
        textcoords="offset points",
        va="center",
        color=INK,
        fontsize=9,
    )
