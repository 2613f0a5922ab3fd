"""A run's figures in words, for terminal and page. Unknown ones are "n/a", with a reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dynts_batch.data.files.filesystem import extended
from dynts_batch.report.device_time import DeviceTime
from dynts_batch.report.measures import Measures, Right, right_of
from dynts_batch.report.price import Price, why_unpriced
from dynts_batch.report.samples.at_k import AtK
from dynts_batch.report.statistics import Estimate, PairedComparison
from dynts_batch.report.totals import Totals
from dynts_batch.report.units import count_scale, duration, energy, money, percent, size

NO_SAMPLE = "no sample was taken while it worked"
#: With the verdict, the errors and the paths at most 14 lines. The report has the rest.
_AT_THE_END = {
    "rows", "right answers", "grading.text", "cost", "cost, all rows", "cost per right answer",
    "energy per right answer", "tokens/s", "peak KV of a sequence", "arena shrunk to",
}  # fmt: skip


@dataclass(frozen=True)
class Line:
    """`note` qualifies the value."""

    name: str
    value: str
    note: str = ""


def headline(run: Measures) -> list[Line]:
    """The six figures to look at first."""
    totals = run.totals
    share, peak = percent(totals.stored_share), _size(totals.mean_peak_bytes)
    tokens, cut = _number(totals.tokens_per_problem), percent(totals.truncated_share)
    busy = percent(totals.device.busy_share if totals.device else None)
    return [
        Line("right answers", percent(run.right_share), _right_of(run)),
        priced(run, right_of([run])),
        Line("KV memory", share, f"of the full cache's; peak {peak} a sequence"),
        Line("tokens/s", _number(totals.tokens_per_s), f"devices at work {busy} of the time"),
        Line("tokens per problem", tokens, f"{cut} ended at the limit"),
        Line("energy per right answer", _energy(totals.joules.per_correct), _energy_note(totals)),
    ]  # fmt: skip


def end_lines(totals: Totals) -> list[Line]:
    """The few figures to look at first when a run has ended, without a look at its questions."""
    lines = [
        *_rows_lines(totals),
        *_lengths_lines(totals),
        *cost_lines(totals),
        *work_lines(totals),
    ]
    return [line for line in lines if line.name in _AT_THE_END]


def _rows_lines(totals: Totals) -> list[Line]:
    text_decides = totals.num_text_matters or totals.num_text_known < (totals.num_judged or 0)
    right = f"{_counted(totals)} judged" if totals.num_judged else "no row was judged"
    return [
        Line("rows", f"{totals.num_rows:,}", _reasons(totals)),
        Line("right answers", percent(totals.right_share), right),
        *(_text_lines(totals) if text_decides else []),
    ]


def quality_lines(run: Measures) -> list[Line]:
    lines = [
        Line("rows", f"{run.totals.num_rows:,}", _reasons(run.totals)),
        Line("right (pass@1)", percent(run.right_share), _interval(run.accuracy)),
    ]
    if run.totals.num_errors:
        note = (
            f"the {run.totals.num_errors:,} failed rows counted as wrong; above they are left out"
        )
        lines.append(Line("right, of all rows", percent(run.accuracy_with_errors), note))
    lines += [line for at_k in run.at_k[1:] for line in _at_k_lines(at_k)]
    return [*lines, *_text_lines(run.totals), *_lengths_lines(run.totals)]


def cost_lines(totals: Totals) -> list[Line]:
    lines = [
        *_price_lines("cost", totals.dollars, money, why_unpriced(totals.config.cost)),
        *_price_lines("energy", totals.joules, energy, "not measured: no NVML counter"),
        Line("device time of the rows", duration(totals.device_s), "their shares, as priced"),
    ]  # fmt: skip
    device = totals.device
    if device is None:
        return [*lines, Line("device time held", "n/a", "no telemetry")]
    note = f"{percent(device.busy_share)} of it at work"
    lines.append(Line("device time held", duration(device.held_s), note))
    gpu = percent(device.utilisation) if device.utilisation is not None else "n/a"
    lines.append(Line("GPU utilisation", gpu, "NVML, mean" if gpu != "n/a" else "no GPU"))
    if totals.held_usd is not None:
        held = money(totals.held_usd)
        lines.append(Line("price of the time held", held, "loading and idling included"))
    return lines


def work_lines(totals: Totals) -> list[Line]:
    device, crossover = totals.device, totals.crossover
    full = _number(totals.mean_full_tokens)
    time = "n/a" if device is None else duration(device.wall_s)
    lines = [
        Line("generated tokens", f"{totals.completion_tokens:,}"),
        Line("time", time, "while any worker had work"),
        Line("tokens/s", _number(totals.tokens_per_s), "of finished rows, all workers"),
        Line("tokens/s of a busy device", _number(totals.tokens_per_device_s)),
        Line(
            "stored tokens", _number(totals.mean_peak_tokens),
            f"of a sequence, mean of the peaks; {full} with the full cache",
        ),
        Line(
            "peak KV of a sequence", _size(totals.mean_peak_bytes),
            f"mean; {percent(totals.stored_share)} of the full cache's"
            f" {_size(totals.mean_full_bytes)}",
        ),
    ]  # fmt: skip
    if device is not None:
        memory = device.device_peak_bytes
        lines += [
            Line("KV arena of a worker", size(device.arena_bytes)),
            *_shrunk_lines(device),
            Line("peak device memory", _size(memory), "" if memory is not None else "no GPU"),
            Line("peak host memory", _size(device.rss_peak_bytes), "of a worker"),
            _together_line(device),
        ]  # fmt: skip
    if crossover is not None:
        note = (
            f"together at most; {crossover.reserved:,} if each reserves the longest, as full does"
        )
        lines.append(Line("full cache, same bytes", f"{crossover.paged:,}", note))
    return lines


def warnings(run: Measures) -> list[str]:
    """What a reader must know about all figures."""
    found = []
    if run.run.is_half_regraded:
        found.append(
            "Grading again broke off: the rows do not all follow the same rules. Run `dynts-batch"
            " grade` again."
        )
    if not run.run.is_finished:
        found.append(
            f"The run is not finished: {run.run.num_rows:,} of {run.run.num_units:,} rows are in."
        )
    return found


def failed_text(totals: Totals, path: str) -> str:
    """Which errors the failed rows of the run at `path` have, and what to do about them."""
    types = ", ".join(f"{count:,} {name}" for name, count in totals.error_types.most_common())
    rows = "1 row" if totals.num_errors == 1 else f"{totals.num_errors:,} rows"
    return (
        f"{rows} failed: {types}. {extended(path, '/errors/*.jsonl')} says why of each;"
        " run.retry_failed=true runs them again."
    )


def comparison_text(found: PairedComparison | None) -> str:
    """`found` in words: the difference with its interval, and the test."""
    if found is None:
        return "n/a: no question is judged in both"
    d, interval = found.difference, ""
    if d.low is not None and d.high is not None:
        interval = f" [{100 * d.low:+.1f}, {100 * d.high:+.1f}]"
    p = f"= {found.p_value:.2g}" if found.p_value >= 1e-4 else "< 0.0001"
    points = f"{100 * d.mean:+.1f} points{interval}"
    return f"{points}; {found.num_better:,} better, {found.num_worse:,} worse; p {p}"


def priced(run: Measures, what: Right = "right answer") -> Line:
    """The price of so many of them that it reads well."""
    usd, per_answer = run.usd_per(what), run.totals.dollars.per_answer
    if usd is None or per_answer is None:
        why = "no prices" if per_answer is None else "none is right"
        return Line(f"cost per {what}", "n/a", why)
    count, words = count_scale(usd)
    plural = "s" if words else ""
    note = f"{money(per_answer * count)} per {words}answer{plural}"
    return Line(f"cost per {words}{what}{plural}", money(usd * count), note)


def _right_of(run: Measures) -> str:
    totals = run.totals
    if totals.num_correct is None:
        return "no row was judged"
    found, accuracy = _counted(totals), run.accuracy
    if accuracy is None or accuracy.low is None or accuracy.high is None:
        return found
    return f"{found}; 95%: {100 * accuracy.low:.1f} to {accuracy.high:.1%}"


def _counted(totals: Totals) -> str:
    """The right rows, and those that they are a share of."""
    found = f"{totals.num_counted_right:,} of {totals.num_counted:,}"
    num = totals.num_certain
    if num is None:
        return found
    return f"{found} first {f'{num} samples' if num > 1 else 'samples'} of each question"


def _interval(accuracy: Estimate | None) -> str:
    if accuracy is None:
        return "no row was judged"
    if accuracy.low is None or accuracy.high is None:
        return "one question: no interval"
    error = accuracy.standard_error
    spread = "all alike" if error is None else f"standard error {100 * error:.1f}"
    return (
        f"95% {100 * accuracy.low:.1f} to {accuracy.high:.1%}, {spread},"
        f" {accuracy.num_questions:,} questions"
    )


def _at_k_lines(found: AtK) -> list[Line]:
    note = f"{found.num_questions:,} questions"
    shares = {"pass": found.pass_at_k, "majority": found.majority_at_k}
    return [
        Line(f"{name}@{found.k}", percent(share), note)
        for name, share in shares.items()
        if share is not None
    ]


def _text_lines(totals: Totals) -> list[Line]:
    """What part of a completion was judged, and how much that decides."""
    if not totals.num_judged:
        return []
    text = totals.config.grading.text
    other = "answer" if text == "completion" else "completion"
    rows = "1 row" if totals.num_text_matters == 1 else f"{totals.num_text_matters:,} rows"
    note = f"{rows} would be judged otherwise by {other}"
    if totals.num_text_known < totals.num_judged:
        note += f"; known of {totals.num_text_known:,} of {totals.num_judged:,}"
    return [Line("grading.text", text, note)]


def _lengths_lines(totals: Totals) -> list[Line]:
    tokens = _number(totals.tokens_per_problem)
    return [
        Line("tokens per problem", tokens, "generated, mean over answers"),
        Line("ended at the token limit", percent(totals.truncated_share)),
    ]  # fmt: skip


def _price_lines(kind: str, price: Price, show: Callable[[float], str], missing: str) -> list[Line]:
    if price.total is None:
        return [Line(kind, "n/a", missing if price.num_answers else "no row was run")]

    def text(amount: float | None) -> str:
        return "n/a" if amount is None else show(amount)

    none_right = {None: "no row was judged", 0: "none is right"}.get(price.num_correct, "")
    return [
        Line(f"{kind}, all rows", show(price.total)),
        Line(f"{kind} per answer", text(price.per_answer)),
        Line(f"{kind} per right answer", text(price.per_correct), none_right),
        Line(f"{kind} per million tokens", text(price.per_million_tokens), "generated"),
    ]


def _together_line(device: DeviceTime) -> Line:
    if device.peak_running == 0:
        return Line("sequences together", "n/a", NO_SAMPLE)
    note = f"most in one worker; mean {device.mean_running:.1f}"
    return Line("sequences together", f"{device.peak_running:,}", note)


def _shrunk_lines(device: DeviceTime) -> list[Line]:
    if device.shrunk_to is None:
        return []
    note = "sequences; set memory.kv_gib lower"
    return [Line("arena shrunk to", f"{device.shrunk_to:,}", note)]


def _energy_note(totals: Totals) -> str:
    per_answer = totals.joules.per_answer
    return "not measured" if per_answer is None else f"{energy(per_answer)} per answer"


def _reasons(totals: Totals) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in totals.finish_reasons.items())


def _energy(joules: float | None) -> str:
    return "n/a" if joules is None else energy(joules)


def _size(num_bytes: float | None) -> str:
    return "n/a" if num_bytes is None else size(round(num_bytes))


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:,.0f}"
