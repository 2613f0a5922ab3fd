"""The figures of a run in words, the same in the terminal and on the page. What is unknown is "n/a", and says why."""

from __future__ import annotations

from dataclasses import dataclass

from dynts_batch.report.crossover import Crossover
from dynts_batch.report.measures import AtK, Measures
from dynts_batch.report.price import Price
from dynts_batch.report.statistics import Estimate, PairedComparison
from dynts_batch.report.units import count_scale, duration, energy, money, percent, size


@dataclass(frozen=True)
class Line:
    """`note` qualifies the value."""

    name: str
    value: str
    note: str = ""


def headline(run: Measures) -> list[Line]:
    """The six figures that one looks at first."""
    share, tokens = run.stored_share, run.tokens_per_problem
    busy = run.device.busy_share if run.device else None
    return [
        Line("right answers", percent(run.right_share), _right_of(run)),
        _priced(run),
        Line("KV memory", percent(share), f"of the full cache's; peak {_size(run.mean_peak_bytes)} a sequence"),
        Line("tokens/s", _number(run.tokens_per_s), f"devices at work {percent(busy)} of the time"),
        Line("tokens per problem", _number(tokens), f"{percent(run.truncated_share)} ended at the limit"),
        Line("energy per right answer", _energy(run.joules.per_correct), f"{_energy(run.joules.per_answer)} per answer"),
    ]  # fmt: skip


def summary_cells(run: Measures) -> list[str]:
    """The run's line in a table of several: right, price, memory, speed, length, truncated, failed."""
    return [
        percent(run.right_share),
        _money(run.dollars.per_correct),
        percent(run.stored_share),
        _number(run.tokens_per_s),
        _number(run.tokens_per_problem),
        percent(run.truncated_share),
        f"{run.num_errors:,}",
    ]


def quality_lines(run: Measures) -> list[Line]:
    lines = [
        Line("rows", f"{run.run.num_rows:,}", _reasons(run)),
        Line("right (pass@1)", percent(run.right_share), _interval(run.accuracy)),
    ]
    if run.num_errors:
        note = f"the {run.num_errors:,} failed rows counted as wrong; above they are left out"
        lines.append(Line("right, of all rows", percent(run.accuracy_with_errors), note))
    lines += [_at_k_line(name, at_k) for at_k in run.at_k[1:] for name in ("pass", "majority")]
    lines += [
        Line("tokens per problem", _number(run.tokens_per_problem), "generated, mean over answers"),
        Line("ended at the token limit", percent(run.truncated_share)),
    ]
    return lines


def cost_lines(run: Measures) -> list[Line]:
    lines = [
        *_price_lines(run.dollars, _money, "set cost.usd_per_gpu_hour or cost.usd_per_kwh"),
        *_price_lines(run.joules, _energy, "not measured: no NVML counter"),
        Line("device time of the rows", duration(run.device_s), "their shares, as priced"),
    ]
    device = run.device
    if device is None:
        return [*lines, Line("device time held", "n/a", "no telemetry")]
    lines.append(
        Line(
            "device time held",
            duration(device.held_s),
            f"{percent(device.busy_share)} of it at work",
        )
    )
    gpu = percent(device.utilisation) if device.utilisation is not None else "n/a"
    lines.append(Line("GPU utilisation", gpu, "NVML, mean" if gpu != "n/a" else "no GPU"))
    if run.held_usd is not None:
        lines.append(Line("price of the time held", money(run.held_usd), "idle time included"))
    return lines


def work_lines(run: Measures) -> list[Line]:
    device, crossover = run.device, run.crossover
    lines = [
        Line("generated tokens", f"{run.completion_tokens:,}"),
        Line("time", "n/a" if device is None else duration(device.wall_s), "in which any worker worked"),
        Line("tokens/s", _number(run.tokens_per_s), "of finished rows, all workers"),
        Line("tokens/s of a busy device", _number(run.tokens_per_device_s)),
        Line("peak KV of a sequence", _size(run.mean_peak_bytes), f"mean; {_size(run.mean_full_bytes)} with the full cache"),
    ]  # fmt: skip
    if device is not None:
        memory = device.device_peak_bytes
        lines += [
            Line("KV arena of a worker", size(device.arena_bytes)),
            Line("peak device memory", _size(memory), "" if memory is not None else "no GPU"),
            Line("peak host memory of a worker", _size(device.rss_peak_bytes)),
            Line("sequences together", f"{device.peak_running:,}", f"most in one worker; mean {device.mean_running:.1f}"),
        ]  # fmt: skip
    if crossover is not None:
        note = f"{crossover.reserved:,} if each reserves the longest sequence, as policy full does"
        lines.append(Line("full cache, same bytes", f"{crossover.paged:,} together at most", note))
    return lines


def verdict(run: Measures) -> str:
    """Which side of the crossover the run was on, in a sentence."""
    crossover = run.crossover
    if run.run.config.policy.name == "full":
        return "This run kept the full cache: it is what eviction is measured against."
    if crossover is None:
        return "Which side of the crossover this run was on is unknown: it has no telemetry."
    together = f"{crossover.running:,} sequences ran together in {size(crossover.arena_bytes)}"
    full = f"a full cache in the same bytes would have held {_full_cache(crossover)}"
    if crossover.is_ahead:
        return f"Eviction bought concurrency: {together}; {full}."
    return f"Eviction bought no concurrency: {together}; {full}. With memory to spare, the full cache is the better choice."


def measured_against_full(run: Measures, full: Measures) -> str:
    """What both runs measured, where one kept everything."""
    own, other = run.tokens_per_device_s, full.tokens_per_device_s
    if own is None or other is None:
        return "n/a"
    return f"{own / other:.2f}x the tokens/s of {full.label} per busy device ({own:,.0f} against {other:,.0f})"


def comparison_text(found: PairedComparison | None) -> str:
    """`found` in words: the difference with its interval, and the test."""
    if found is None:
        return "n/a: no question is judged in both"
    d = found.difference
    interval = (
        "" if d.low is None or d.high is None else f" [{100 * d.low:+.1f}, {100 * d.high:+.1f}]"
    )
    p = f"{found.p_value:.2g}" if found.p_value >= 1e-4 else "< 0.0001"
    return f"{100 * d.mean:+.1f} points{interval}; {found.num_better:,} better, {found.num_worse:,} worse; p {p if p.startswith('<') else '= ' + p}"


def _priced(run: Measures) -> Line:
    """The price of so many right answers that it reads well."""
    usd, per_answer = run.dollars.per_correct, run.dollars.per_answer
    if usd is None or per_answer is None:
        return Line(
            "cost per right answer", "n/a", "no prices" if per_answer is None else "none is right"
        )
    count, words = count_scale(usd)
    name = f"cost per {words}right answer{'s' if words else ''}"
    return Line(
        name,
        money(usd * count),
        f"{money(per_answer * count)} per {words}answer{'s' if words else ''}",
    )


def _right_of(run: Measures) -> str:
    if run.num_correct is None:
        return "no row was judged"
    found = f"{run.num_correct:,} of {run.num_judged:,}"
    accuracy = run.accuracy
    if accuracy is None or accuracy.low is None or accuracy.high is None:
        return found
    return f"{found}; 95%: {100 * accuracy.low:.1f} to {accuracy.high:.1%}"


def _interval(accuracy: Estimate | None) -> str:
    if accuracy is None:
        return "no row was judged"
    if accuracy.standard_error is None or accuracy.low is None or accuracy.high is None:
        return "one question: no interval"
    return (
        f"95% {100 * accuracy.low:.1f} to {accuracy.high:.1%}, standard error {100 * accuracy.standard_error:.1f},"
        f" {accuracy.num_questions:,} questions"
    )


def _at_k_line(name: str, found: AtK) -> Line:
    value = found.pass_at_k if name == "pass" else found.majority_at_k
    return Line(f"{name}@{found.k}", percent(value), f"{found.num_questions:,} questions")


def _price_lines(price: Price, show: object, missing: str) -> list[Line]:
    assert callable(show)
    kind = "cost" if show is _money else "energy"
    note = missing if price.total is None else ""
    return [
        Line(f"{kind}, all rows", show(price.total), note),
        Line(f"{kind} per answer", show(price.per_answer)),
        Line(f"{kind} per right answer", show(price.per_correct), "none is right" if price.num_correct == 0 else ""),
        Line(f"{kind} per million tokens", show(price.per_million_tokens), "generated"),
    ]  # fmt: skip


def _full_cache(crossover: Crossover) -> str:
    return (
        f"{crossover.paged:,} at most, or {crossover.reserved:,} with room reserved for the longest"
    )


def _reasons(run: Measures) -> str:
    counts = run.run.table["finish_reason"].value_counts().to_pylist()
    return ", ".join(f"{c['counts']:,} {c['values']}" for c in counts)


def _money(usd: float | None) -> str:
    return "n/a" if usd is None else money(usd)


def _energy(joules: float | None) -> str:
    return "n/a" if joules is None else energy(joules)


def _size(num_bytes: float | None) -> str:
    return "n/a" if num_bytes is None else size(round(num_bytes))


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:,.0f}"
