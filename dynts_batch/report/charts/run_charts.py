"""The charts of one run: answer lengths, evictions, and workers over time. Functions return SVG."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator

from dynts_batch.report.charts.canvas import (
    MUTED,
    NUM_SERIES,
    OTHER,
    RIGHT,
    SERIES,
    SETTINGS,
    WRONG,
    legend,
    new_figure,
    nothing,
    short,
    svg,
    thousands,
)
from dynts_batch.report.device_time import workers
from dynts_batch.report.measures import Measures
from dynts_batch.report.units import byte_scale, duration


def lengths(run: Measures) -> str:
    """Histogram of generated tokens, stacked by right, wrong and not judged answers."""
    groups = {name: values for name, values in run.lengths().items() if len(values)}
    if not groups:
        return nothing("no row was run")
    with mpl.rc_context(SETTINGS):
        figure, axes = new_figure()
        longest = max(values.max() for values in groups.values())
        bins = np.linspace(0, longest + 1, 31).tolist()
        colors = {"right": RIGHT, "wrong": WRONG, "not judged": OTHER}
        axes.hist(
            list(groups.values()), bins=bins, stacked=True, rwidth=0.92,
            color=[colors[name] for name in groups],
            label=[f"{name} ({len(v):,})" for name, v in groups.items()],
        )  # fmt: skip
        axes.set_xlabel("generated tokens")
        axes.set_ylabel("answers")
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        thousands(axes)
        legend(axes)
        return svg(figure, "Length of answers, right and wrong")


def memory_over_time(run: Measures) -> str:
    """Stored KV bytes of each worker over time, and how many its arena can hold."""
    return _over_time(run, "memory")


def throughput_over_time(run: Measures) -> str:
    """Generated tokens per second of each worker over time, as its rows finish."""
    return _over_time(run, "throughput")


def eviction_timeline(run: Measures, traces: Sequence[dict[str, list]]) -> str:
    """Stored tokens of the traced sequences against their length.

    The full cache is the diagonal; eviction makes a saw-tooth of it. Rows of older versions lack
    the counts.
    """
    counts = [trace["stored_len"] for trace in traces if trace["stored_len"]]
    if not counts:
        return nothing("no row was traced: set run.trace_rows")
    with mpl.rc_context(SETTINGS):
        figure, axes = new_figure()
        longest = max(map(len, counts))
        axes.plot(
            [0, longest], [0, longest], color=MUTED, linestyle=(0, (4, 3)), label="full cache"
        )
        for i, stored in enumerate(counts):
            axes.plot(
                range(len(stored) + 1), [0, *stored], color=SERIES[0], linewidth=1.2, alpha=0.75,
                label=f"stored by each layer and head, {len(counts)} sequences" if i == 0 else None,
            )  # fmt: skip
        axes.set_xlabel("tokens read and generated")
        axes.set_ylabel("tokens in the cache")
        axes.set_xlim(0, longest)
        axes.set_ylim(0, longest)
        thousands(axes)
        legend(axes)
        return svg(figure, "Tokens in the cache over the life of a sequence")


def _over_time(run: Measures, what: str) -> str:
    telemetry = run.run.telemetry
    if telemetry is None or telemetry.num_rows < 2:
        return nothing("the run was too short for telemetry")
    with mpl.rc_context(SETTINGS):
        figure, axes = new_figure()
        started_s = min(telemetry["time_s"].to_pylist())
        its_workers = workers(telemetry)
        arena_bytes = max(samples["arena_bytes"][0].as_py() for _, samples in its_workers)
        divisor, unit = byte_scale(arena_bytes)
        for i, (worker_id, samples) in enumerate(its_workers):
            times_s = np.array(samples["time_s"].to_pylist()) - started_s
            label = short(worker_id) if i < NUM_SERIES - 1 else None
            color = SERIES[i % NUM_SERIES]
            if what == "memory":
                stored = np.array(samples["stored_tokens"].to_pylist()) * _bytes_per_token(run)
                axes.plot(times_s, stored / divisor, color=color, label=label)
            else:
                tokens = np.array(samples["completion_tokens"].to_pylist())
                rates, edges = _rates(tokens, times_s)
                axes.stairs(rates, edges, color=color, label=label, linewidth=1.5)
        if what == "memory":
            dashes = (0, (4, 3))
            axes.axhline(arena_bytes / divisor, color=MUTED, linestyle=dashes, label="allocated")
        axes.set_ylim(bottom=0)
        axes.set_xlim(left=0)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: duration(x)))
        axes.xaxis.set_major_locator(MultipleLocator(_time_step_s(axes.get_xlim()[1])))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:,.6g}"))
        axes.set_xlabel("time since the first sample")
        axes.set_ylabel(
            f"KV memory in use, {unit}" if what == "memory" else "tokens/s of finished rows"
        )
        legend(axes)
        return svg(figure, f"{what.capitalize()} over time, by worker")


def _rates(counts: np.ndarray, times_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Increase of `counts` per second, and the times between which it holds.

    The times are at least a second apart, because rows that end together say nothing of the moment
    between two samples.
    """
    gap_s = max(1.0, (times_s[-1] - times_s[0]) / 60)
    kept = [0]
    for i in range(1, len(times_s)):
        if times_s[i] - times_s[kept[-1]] >= gap_s:
            kept.append(i)
    if len(kept) > 1:
        kept[-1] = len(times_s) - 1
    edges = times_s[kept]
    return np.diff(counts[kept]) / np.diff(edges), edges


def _time_step_s(longest_s: float) -> float:
    """Step between the marks of a time axis: whole seconds, minutes or hours, at most six marks."""
    steps_s = [unit * step for unit in (1, 60, 3600, 36_000) for step in (1, 2, 5, 10, 15, 30)]
    return next((step for step in sorted(steps_s) if longest_s / step <= 6), longest_s / 6)


def _bytes_per_token(run: Measures) -> float:
    """Bytes of a stored token, by the rows."""
    tokens = run.of_answers("peak_cache_len").sum()
    return float(run.of_answers("peak_kv_bytes").sum() / tokens) if tokens else 0.0
