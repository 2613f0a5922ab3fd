"""Several runs as the rows of one table, with the same columns in the terminal and on the page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dynts_batch.report.comparison.pairs import MAX_RUNS_WITH_ALL_PAIRS, oriented_pair
from dynts_batch.report.comparison.reasons import reasons
from dynts_batch.report.lines import comparison_text, priced
from dynts_batch.report.measures import Measures, right_of
from dynts_batch.report.statistics import Estimate
from dynts_batch.report.totals import Totals
from dynts_batch.report.units import (
    MUCH_LESS,
    count_scale,
    duration,
    energy,
    money,
    percent,
    size,
)


@dataclass(frozen=True)
class RunColumn:
    """One figure of every run, in their order; "n/a" if unknown."""

    name: str
    values: tuple[str, ...]


def overview(runs: Sequence[Measures]) -> list[RunColumn]:
    """The first figures to look at: is it right, what does it cost, what does it hold, how fast is
    it."""
    totals = [run.totals for run in runs]
    columns = [
        RunColumn("right answers", _texts([run.right_share for run in runs], percent)),
        RunColumn("95%", tuple(_interval(run.accuracy) for run in runs)),
        _priced(right_of(runs), [run.usd_per(right_of(runs)) for run in runs]),
        RunColumn("KV memory of full", _texts([t.stored_share for t in totals], percent)),
        RunColumn("tokens/s", _counts([t.tokens_per_s for t in totals])),
        _against_full(runs),
    ]
    return [column for column in columns if set(column.values) != {"n/a"}]


def details(runs: Sequence[Measures]) -> dict[str, list[RunColumn]]:
    """All other figures, under their headings, without those that no run knows."""
    found = {"Right answers": _quality(runs), "Cost": _cost(runs), "Work and memory": _work(runs)}
    return {
        title: [column for column in columns if set(column.values) != {"n/a"}]
        for title, columns in found.items()
    }


def cheapest(runs: Sequence[Measures]) -> Measures | None:
    """The run whose right answers, or right votes, cost least. None if no run knows."""
    what = right_of(runs)
    known = [(price, i) for i, run in enumerate(runs) if (price := run.usd_per(what))]
    return runs[min(known)[1]] if known else None


def conclusion(runs: Sequence[Measures]) -> str | None:
    """Which run gives the cheapest right answer, and what that costs in accuracy. None without
    prices."""
    best = cheapest(runs)
    if best is None:
        return None
    what = right_of(runs)
    line = priced(best, what)
    text = f"Cheapest {what}: {best.label}, {line.value} {line.name.removeprefix('cost ')}"
    base = _base(runs, best)
    if base is None:
        return f"{text}."
    pair = oriented_pair(runs, best, base)
    found = f"Right answers, {pair.names}: {comparison_text(pair.found)}."
    own, other = best.usd_per(what), base.usd_per(what)
    if own is None or not other:
        return f"{text}. {found}"
    less = f"{1 - own / other:.0%} less"
    if own / other < MUCH_LESS:
        less = f"{other / own:,.0f} times cheaper"
    return f"{text}, {less} than {base.label}. {found}"


def why(runs: Sequence[Measures]) -> list[str]:
    """Sentences on what makes right answers cheaper in the cheapest run than in each other one.

    If there are many runs, only the one that it is compared with counts.
    """
    best = cheapest(runs)
    if best is None:
        return []
    others = [run for run in runs if run is not best]
    if len(runs) > MAX_RUNS_WITH_ALL_PAIRS:
        others = [base] if (base := _base(runs, best)) else []
    return reasons(best, others, right_of(runs))


def _base(runs: Sequence[Measures], best: Measures) -> Measures | None:
    """The run to compare `best` with: the first other run with the full cache, else the cheapest
    other one."""
    others = [run for run in runs if run is not best]
    full = [run for run in others if run.totals.config.policy.name == "full"]
    return full[0] if full else cheapest(others)


def _quality(runs: Sequence[Measures]) -> list[RunColumn]:
    totals = [run.totals for run in runs]
    at_k = [
        {
            f"{name}@{found.k}": getattr(found, f"{name}_at_k")
            for found in run.at_k[1:]
            for name in ("pass", "majority")
        }
        for run in runs
    ]
    names = dict.fromkeys(name for found in at_k for name in found)
    return [
        RunColumn("rows", tuple(f"{t.num_rows:,}" for t in totals)),
        RunColumn("failed", tuple(f"{t.num_errors:,}" for t in totals)),
        RunColumn("judged", tuple(f"{t.num_judged:,}" for t in totals)),
        RunColumn("samples run", _texts([run.run_share for run in runs], percent)),
        *(RunColumn(name, _texts([found.get(name) for found in at_k], percent)) for name in names),
        RunColumn("tokens per problem", _counts([t.tokens_per_problem for t in totals])),
        RunColumn("at the token limit", _texts([t.truncated_share for t in totals], percent)),
        *_endings(totals),
    ]


def _endings(totals: Sequence[Totals]) -> list[RunColumn]:
    """Rows that were cut or run again; nothing that no run knows of."""
    found = [t.endings for t in totals]
    counts = {
        "thinking cut": [e.budget.num_rows for e in found],
        "loops ended": [e.loop.num_rows for e in found],
        "run again": [e.retries.num_rows for e in found],
    }
    return [RunColumn(name, _counts(its)) for name, its in counts.items() if any(its)]


def _cost(runs: Sequence[Measures]) -> list[RunColumn]:
    totals = [run.totals for run in runs]
    devices = [t.device for t in totals]
    return [
        _priced("answer", [t.dollars.per_answer for t in totals]),
        RunColumn(
            "per million tokens", _texts([t.dollars.per_million_tokens for t in totals], money)
        ),
        RunColumn("all rows", _texts([t.dollars.total for t in totals], money)),
        RunColumn(
            "energy per right answer", _texts([t.joules.per_correct for t in totals], energy)
        ),
        RunColumn("device time held", _texts([d.held_s if d else None for d in devices], duration)),
        RunColumn("at work", _texts([d.busy_share if d else None for d in devices], percent)),
    ]


def _work(runs: Sequence[Measures]) -> list[RunColumn]:
    totals = [run.totals for run in runs]
    devices, sides = [t.device for t in totals], [t.crossover for t in totals]
    return [
        RunColumn("peak KV of a sequence", _texts([t.mean_peak_bytes for t in totals], _size)),
        RunColumn(
            "KV arena of a worker", _texts([d.arena_bytes if d else None for d in devices], _size)
        ),
        RunColumn(
            "sequences together, mean",
            _texts([d.mean_running if d else None for d in devices], _tenths),
        ),
        RunColumn(
            "sequences together at most",
            _counts([d.peak_running or None if d else None for d in devices]),
        ),
        *_preemptions(totals),
        RunColumn("full cache, same bytes", _counts([s.paged if s else None for s in sides])),
        RunColumn("tokens/s of a busy device", _counts([t.tokens_per_device_s for t in totals])),
    ]


def _preemptions(totals: Sequence[Totals]) -> list[RunColumn]:
    """Empty if no sequence of any run lost its cache."""
    if not any(t.num_preemptions for t in totals):
        return []
    return [
        RunColumn("times preempted", _counts([t.num_preemptions for t in totals])),
        RunColumn("tokens computed again", _counts([t.recomputed_tokens for t in totals])),
    ]


def _against_full(runs: Sequence[Measures]) -> RunColumn:
    """Speed on the same devices, over the first run that kept everything."""
    full = next((run.totals for run in runs if run.totals.config.policy.name == "full"), None)
    speed = None if full is None else full.tokens_per_device_s
    own = [run.totals.tokens_per_device_s for run in runs]
    ratios = [mine / speed if mine is not None and speed else None for mine in own]
    return RunColumn("speed of full", _texts(ratios, lambda ratio: f"{ratio:.2f}x"))


def _priced(what: str, prices: Sequence[float | None]) -> RunColumn:
    """Prices of as many answers as read well for the cheapest run."""
    count, words = count_scale(min((price for price in prices if price), default=0.0))
    name = f"per {words}{what}{'s' if words else ''}"
    return RunColumn(name, _texts([price and price * count for price in prices], money))


def _interval(accuracy: Estimate | None) -> str:
    if accuracy is None or accuracy.low is None or accuracy.high is None:
        return "n/a"
    return f"{100 * accuracy.low:.1f}-{100 * accuracy.high:.1f}"


def _counts(values: Sequence[float | None]) -> tuple[str, ...]:
    return _texts(values, lambda value: f"{value:,.0f}")


def _texts(values: Sequence[float | None], show: Callable[[float], str]) -> tuple[str, ...]:
    return tuple("n/a" if value is None else show(value) for value in values)


def _tenths(value: float) -> str:
    return f"{value:,.1f}"


def _size(num_bytes: float) -> str:
    return size(round(num_bytes))
