"""A tuning in the terminal: what it will need, before it starts, and what it found."""

from __future__ import annotations

from collections.abc import Iterator

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from dynts_batch.errors import InputError
from dynts_batch.report.tuning.betting import least_loss, least_questions, questions_needed
from dynts_batch.report.tuning.certificate import word
from dynts_batch.report.tuning.ladder import Terms
from dynts_batch.report.tuning.outcome import Outcome, Surer, Tried
from dynts_batch.report.units import duration, money

#: How often two runs may differ. The first share is named first.
_SHARES_DIFFERING = (0.1, 0.05, 0.2)


def check_enough(num_questions: int, terms: Terms, delta: float) -> None:
    """Check that `num_questions` can certify something. `delta` is of one chain.

    Raises: InputError if they certify nothing, whatever is answered.
    """
    least = least_questions(terms.most_loss, delta)
    if num_questions >= least:
        return
    possible = least_loss(num_questions, delta)
    instead = (
        "they certify no loss at all"
        if possible is None
        else f"they can certify a loss below {100 * possible:g} points at best"
    )
    raise InputError(
        f"a loss below {_points(terms.most_loss)} (--points) with delta {delta:.3g} needs at least"
        f" {least:,} questions even if no answer differs, got {num_questions:,}: {instead}"
    )


def forecast(num_questions: int, terms: Terms, delta: float) -> Iterator[str]:
    """How many questions each candidate will need, and so rows of it and the full cache.

    `delta` is of one chain.
    """
    yield (
        f"to certify a loss below {_points(terms.most_loss)} with delta {delta:.3g}, a candidate"
        f" that loses nothing needs at least {least_questions(terms.most_loss, delta):,} questions,"
        f" if no answer differs; of {num_questions:,} that there are:"
    )
    for share in _SHARES_DIFFERING:
        least = least_questions(terms.most_loss, delta)
        num = max(least, questions_needed(terms.most_loss, delta, share))
        too_many = "" if num <= num_questions else ", more than there are"
        yield f"  about {num:,.0f} if the two differ in {share:.0%} of them{too_many}"
    yield "  in one of five cases up to 2.5 times as many; one that loses more is given up earlier"


def table(outcome: Outcome) -> Table:
    """Every candidate in the order in which it was tried."""
    shown = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    shown.add_column("candidate", overflow="fold", vertical="bottom")
    for name in ("", "questions", "differ", "loss", "at most", "KV %", "cost"):
        shown.add_column(name, justify="right" if name else "left", vertical="bottom")
    found = {tried.rung: tried for tried in outcome.tried}
    for rung in outcome.ladder.rungs:
        if (tried := found.get(rung)) is None:
            shown.add_row(Text(str(rung)), "not tried", style="dim")
            continue
        is_choice = tried is outcome.choice
        shown.add_row(Text(str(rung)), *_cells(tried), style="bold" if is_choice else None)
    return shown


def surer_lines(outcome: Outcome) -> Iterator[str]:
    """What it would take to be surer of the choice, and to certify the rest."""
    if outcome.choice is not None:
        yield f"to be surer of {outcome.choice.rung}, if further questions are like those seen:"
        yield from (f"  {_surer(surer)}" for surer in outcome.surer(outcome.choice))
    for tried in outcome.tried:
        if tried.trial.judgement.verdict == "open" and tried.trial.num_seen:
            yield f"to certify {tried.rung}, if further questions are like those seen:"
            yield from (f"  {_surer(surer)}" for surer in outcome.surer(tried))


def spent_line(outcome: Outcome) -> str:
    spent = outcome.spent
    dollars = "" if not spent.usd else f", {money(spent.usd)}"
    return (
        f"spent: {spent.num_rows:,} rows, {spent.completion_tokens:,} tokens,"
        f" {duration(spent.device_s)} of device time{dollars}: {outcome.share_of_all:.1%} of the"
        " rows of all candidates on all questions"
    )


def _cells(tried: Tried) -> list[str]:
    return [
        word(tried),
        f"{len(tried.losses):,}",
        f"{tried.share_differing:.1%}",
        f"{100 * tried.mean_loss:+.1f}",
        f"{100 * tried.bounds[1]:+.1f}",
        "" if tried.memory is None else f"{100 * tried.memory:.0f}",
        "" if tried.cost is None else f"{tried.cost:.2f}",
    ]


def _surer(surer: Surer) -> str:
    what = f"below {_points(surer.most_loss)} with delta {surer.delta:.3g}"
    if surer.num_questions is None:
        return f"{what}: no number of questions, it loses too much"
    if surer.num_more == 0:
        return f"{what}: it is, after these questions"
    price = f", {duration(surer.device_s)} of device time"
    if surer.usd:
        price = f", {money(surer.usd)}"
    return f"{what}: about {surer.num_questions:,} questions, {surer.num_more:,} more{price}"


def _points(share: float) -> str:
    return f"{100 * share:g} points"
