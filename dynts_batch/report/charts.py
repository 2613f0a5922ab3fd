"""The charts of the page: matplotlib draws them as SVG whose colours are the page's.

Why matplotlib: its SVG needs no script, so a page of charts is small, prints, and cannot break in a browser. Colours
are placeholders that become CSS variables, and text stays text: one drawing serves light, dark and print.

Every function returns SVG that may stand inside HTML. Labels are untrusted: they are drawn, never parsed.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from itertools import count
from typing import Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from dynts_batch.report.comparison import Pair
from dynts_batch.report.device_time import workers
from dynts_batch.report.measures import Measures
from dynts_batch.report.units import byte_scale, count_scale, duration, money, percent

NUM_SERIES = 8

#: Colours that matplotlib draws with, and the CSS variables that take their place.
_INK, _MUTED, _GRID, _RIGHT, _WRONG, _OTHER = (f"#fe00{i:02x}" for i in range(6))
_SERIES = [f"#fe01{i:02x}" for i in range(NUM_SERIES)]
_VARIABLES = dict(
    zip(
        (_INK, _MUTED, _GRID, _RIGHT, _WRONG, _OTHER),
        ("ink", "muted", "grid", "right", "wrong", "other"),
        strict=True,
    )
) | {color: f"series-{i}" for i, color in enumerate(_SERIES)}

_SETTINGS = {
    "svg.fonttype": "none", "text.parse_math": False, "axes.formatter.use_mathtext": False,
    "font.size": 10, "axes.titlesize": 10, "axes.labelsize": 9.5, "legend.fontsize": 9,
    "text.color": _INK, "axes.labelcolor": _MUTED, "axes.edgecolor": _GRID, "xtick.color": _MUTED,
    "ytick.color": _MUTED, "grid.color": _GRID, "grid.linewidth": 0.7, "axes.grid": True, "axes.axisbelow": True,
    "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.8, "legend.frameon": False,
    "xtick.major.size": 0, "ytick.major.size": 0, "lines.linewidth": 1.8, "lines.solid_capstyle": "round",
    "figure.facecolor": "none", "axes.facecolor": "none", "savefig.facecolor": "none",
}  # fmt: skip

_WIDTH, _HEIGHT = 5.2, 3.3  # inches: narrow, so that the labels stay readable on a phone
_numbers = count()


def accuracy_against(runs: Sequence[Measures], what: Literal["cost", "memory"]) -> str:
    """A point per run: share right, with its interval, against dollars per answer or peak KV bytes per sequence."""
    is_cost = what == "cost"
    of = {run: run.dollars.per_answer if is_cost else run.mean_peak_bytes for run in runs}
    points = [(x, run) for run, x in of.items() if x is not None and run.right_share is not None]
    if not points:
        return _nothing("no run has both prices and judged rows" if is_cost else "no judged rows")
    largest = max(x for x, _ in points)
    factor: float
    if is_cost:
        factor, words = count_scale(largest)
        label = f"US dollars per {words}answer{'s' if words else ''}"
    else:
        divisor, unit = byte_scale(largest)
        factor, label = 1 / divisor, f"peak KV memory of a sequence, {unit}"
    with mpl.rc_context(_SETTINGS):
        figure, axes = _figure()
        axes.set_xlim(0, 1.3 * largest * factor or 1)
        axes.set_ylim(-0.03, 1.06)
        placed: list[tuple[float, float]] = []
        for x, run in sorted(points, key=lambda point: -(point[1].right_share or 0)):
            _point(axes, run, x * factor, _SERIES[list(runs).index(run) % NUM_SERIES], placed)
        axes.set_ylabel("right answers")
        axes.set_xlabel(label)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:.0%}"))
        axes.xaxis.set_major_locator(MaxNLocator(6))
        return _svg(figure, f"Share of right answers against {what}")


def cost_per_correct(runs: Sequence[Measures]) -> str:
    """A bar per run, the cheapest first, with the interval that follows from the accuracy's."""
    priced = [(run.dollars.per_correct, i) for i, run in enumerate(runs)]
    bars = sorted((price, i) for price, i in priced if price is not None)
    if not bars:
        return _nothing("no run has both prices and right answers")
    count, words = count_scale(bars[0][0])
    with mpl.rc_context(_SETTINGS):
        figure, axes = _figure(height=max(_HEIGHT, 0.9 + 0.36 * len(bars)))
        ends = []
        for place, (price, i) in enumerate(bars):
            run = runs[i]
            axes.barh(place, price * count, height=0.62, color=_SERIES[i % NUM_SERIES])
            low = high = price
            if run.accuracy is not None and run.accuracy.low:
                low = run.dollars.per_correct_at(run.accuracy.high) or price
                high = run.dollars.per_correct_at(run.accuracy.low) or price
                axes.plot([low * count, high * count], [place, place], color=_INK, linewidth=1.1)
            ends.append(max(price, high) * count)
        # A policy that is hardly ever right would squeeze all others into nothing.
        limit = min(max(ends), 12 * bars[0][0] * count)
        for place, (price, i) in enumerate(bars):
            axes.annotate(
                f"{money(price * count)}, {percent(runs[i].right_share)} right", (min(ends[place], limit), place),
                xytext=(6, 0), textcoords="offset points", va="center", annotation_clip=False,
            )  # fmt: skip
        axes.set_yticks(range(len(bars)), [_short(runs[i].label) for _, i in bars], color=_INK)
        axes.set_ylim(len(bars) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        axes.set_xlim(0, 1.5 * limit)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel(f"US dollars per {words}right answer{'s' if words else ''}")
        return _svg(figure, "Dollars per right answer")


def differences(pairs: Sequence[Pair]) -> str:
    """A line per pair of runs: the difference in right answers with its interval, and where zero is."""
    known = [pair for pair in pairs if pair.found is not None]
    if not known:
        return _nothing("no two runs share a judged question")
    with mpl.rc_context(_SETTINGS):
        figure, axes = _figure(height=max(_HEIGHT, 0.9 + 0.3 * len(known)))
        axes.axvline(0, color=_MUTED, linewidth=1)
        for place, pair in enumerate(known):
            assert pair.found is not None
            found = pair.found.difference
            if found.low is not None and found.high is not None:
                axes.plot(
                    [100 * found.low, 100 * found.high], [place, place], color=_INK, linewidth=1.4
                )
            axes.plot([100 * found.mean], [place], "o", color=_INK, markersize=6)
        names = [f"{_short(pair.b.label)} \u2212 {_short(pair.a.label)}" for pair in known]
        axes.set_yticks(range(len(known)), names, color=_INK, fontsize=9)
        axes.set_ylim(len(known) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.set_xlim(min(-1.0, axes.get_xlim()[0]), max(1.0, axes.get_xlim()[1]))
        axes.set_xlabel("difference in right answers, percentage points")
        return _svg(figure, "Differences in right answers between runs")


def lengths(run: Measures) -> str:
    """Histogram of generated tokens, right, wrong and not judged answers stacked."""
    groups = {name: values for name, values in run.lengths().items() if len(values)}
    if not groups:
        return _nothing("no row was run")
    with mpl.rc_context(_SETTINGS):
        figure, axes = _figure()
        longest = max(values.max() for values in groups.values())
        bins = np.linspace(0, longest + 1, 31).tolist()
        colors = {"right": _RIGHT, "wrong": _WRONG, "not judged": _OTHER}
        axes.hist(
            list(groups.values()), bins=bins, stacked=True, rwidth=0.92,
            color=[colors[name] for name in groups], label=[f"{name} ({len(v):,})" for name, v in groups.items()],
        )  # fmt: skip
        axes.set_xlabel("generated tokens")
        axes.set_ylabel("answers")
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        _thousands(axes)
        _legend(axes)
        return _svg(figure, "Length of answers, right and wrong")


def memory_over_time(run: Measures) -> str:
    """Stored KV bytes of each worker over time, and what its arena can hold."""
    return _over_time(run, "memory")


def throughput_over_time(run: Measures) -> str:
    """Generated tokens per second of each worker over time, as its rows finish."""
    return _over_time(run, "throughput")


def eviction_timeline(run: Measures, traces: Sequence[dict[str, list]]) -> str:
    """Stored tokens of the traced sequences against their length: the saw-tooth that eviction makes of the full
    cache's diagonal."""
    if not traces:
        return _nothing("no row was traced: set run.trace_rows")
    with mpl.rc_context(_SETTINGS):
        figure, axes = _figure()
        longest = max(len(trace["evicted_at"]) for trace in traces)
        axes.plot(
            [0, longest], [0, longest], color=_MUTED, linestyle=(0, (4, 3)), label="full cache"
        )
        for i, trace in enumerate(traces):
            lengths, stored = stored_tokens(trace)
            axes.plot(
                lengths, stored, color=_SERIES[0], linewidth=1.2, alpha=0.75,
                label=f"stored ({len(traces)} traced sequences)" if i == 0 else None,
            )  # fmt: skip
        axes.set_xlabel("tokens read and generated")
        axes.set_ylabel("tokens in the cache")
        axes.set_xlim(0, longest)
        axes.set_ylim(0, longest)
        _thousands(axes)
        _legend(axes)
        return _svg(figure, "Tokens in the cache over the life of a sequence")


def stored_tokens(trace: dict[str, list]) -> tuple[np.ndarray, np.ndarray]:
    """Length of a sequence and tokens that some layer or head stores then, before and after each eviction."""
    num_tokens = len(trace["evicted_at"])
    times = np.array(sorted(at for at in trace["evicted_at"] if at is not None), dtype=int)
    moments = np.unique(times)
    gone_before = np.searchsorted(times, moments, side="left")
    gone_after = np.searchsorted(times, moments, side="right")
    lengths = np.concatenate([[0], np.repeat(moments, 2), [num_tokens]])
    gone = np.concatenate([[0], np.column_stack([gone_before, gone_after]).ravel(), [len(times)]])
    return lengths, lengths - gone


def _over_time(run: Measures, what: str) -> str:
    telemetry = run.run.telemetry
    if telemetry is None or telemetry.num_rows < 2:
        return _nothing("the run was too short for telemetry")
    with mpl.rc_context(_SETTINGS):
        figure, axes = _figure()
        started_s = min(telemetry["time_s"].to_pylist())
        its_workers = workers(telemetry)
        arena_bytes = max(samples["arena_bytes"][0].as_py() for _, samples in its_workers)
        divisor, unit = byte_scale(arena_bytes)
        for i, (worker_id, samples) in enumerate(its_workers):
            hours = (np.array(samples["time_s"].to_pylist()) - started_s) / 3600
            label = _short(worker_id) if i < NUM_SERIES - 1 else None
            color = _SERIES[i % NUM_SERIES]
            if what == "memory":
                stored = np.array(samples["stored_tokens"].to_pylist()) * _bytes_per_token(run)
                axes.plot(hours, stored / divisor, color=color, label=label)
            else:
                tokens = np.array(samples["completion_tokens"].to_pylist())
                rates, edges = _rates(tokens, hours * 3600)
                axes.stairs(rates, edges / 3600, color=color, label=label, linewidth=1.5)
        if what == "memory":
            dashes = (0, (4, 3))
            axes.axhline(arena_bytes / divisor, color=_MUTED, linestyle=dashes, label="allocated")
        axes.set_ylim(bottom=0)
        axes.set_xlim(left=0)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: duration(x * 3600)))
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:,.6g}"))
        axes.set_xlabel("time since the first sample")
        axes.set_ylabel(
            f"KV memory in use, {unit}" if what == "memory" else "tokens/s of finished rows"
        )
        _legend(axes)
        return _svg(figure, f"{what.capitalize()} over time, by worker")


def _rates(counts: np.ndarray, times_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Increase of `counts` per second, and the times between which it is so: a second apart at least, because the
    rows that end together say nothing of the moment between two samples."""
    gap_s = max(1.0, (times_s[-1] - times_s[0]) / 60)
    kept = [0]
    for i in range(1, len(times_s)):
        if times_s[i] - times_s[kept[-1]] >= gap_s:
            kept.append(i)
    if len(kept) > 1:
        kept[-1] = len(times_s) - 1
    edges = times_s[kept]
    return np.diff(counts[kept]) / np.diff(edges), edges


def _bytes_per_token(run: Measures) -> float:
    """What a stored token takes, as the rows say."""
    tokens = run.of_answers("peak_cache_len").sum()
    return float(run.of_answers("peak_kv_bytes").sum() / tokens) if tokens else 0.0


def _point(
    axes: Axes, run: Measures, x: float, color: str, placed: list[tuple[float, float]]
) -> None:
    """Draw `run` at `x`, its label clear of those at `placed`, which it joins."""
    assert run.accuracy is not None
    mean, low, high = run.accuracy.mean, run.accuracy.low, run.accuracy.high
    if low is not None and high is not None:
        axes.plot([x, x], [low, high], color=color, linewidth=1.4)
    axes.plot([x], [mean], "o", color=color, markersize=8)
    (_, right), y = axes.get_xlim(), mean + 0.02
    while any(
        abs(y - other_y) < 0.06 and abs(x - other_x) < 0.3 * right for other_x, other_y in placed
    ):
        y -= 0.06
    placed.append((x, y))
    axes.annotate(
        _short(run.label), (x, y), xytext=(8, 0), textcoords="offset points", color=_INK, fontsize=9
    )


def _figure(height: float = _HEIGHT) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    return figure, figure.add_subplot()


def _legend(axes: Axes) -> None:
    axes.figure.legend(
        loc="outside upper left", ncols=3, handlelength=1.2, columnspacing=1.2, borderpad=0
    )


def _thousands(axes: Axes) -> None:
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.xaxis.set_major_locator(MaxNLocator(5))


def _short(label: str) -> str:
    return label if len(label) <= 28 else f"{label[:27]}\u2026"


def _svg(figure: Figure, title: str) -> str:
    """`figure` as an SVG element: named for screen readers, as wide as its place, with ids of its own."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    for color, name in _VARIABLES.items():
        text = text.replace(color, f"var(--{name})")
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    prefix = f"c{next(_numbers)}-"
    text = re.sub(r'\bid="', f'id="{prefix}', text)
    text = re.sub(r'(url\(|xlink:href=")#', rf"\1#{prefix}", text)
    return text.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)


def _nothing(why: str) -> str:
    """A place for a chart that has nothing to show."""
    return f'<p class="nothing">n/a: {why}</p>'
