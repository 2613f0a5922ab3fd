"""What cut thinking, ended loops and second attempts cost and saved, in words."""

from __future__ import annotations

from collections.abc import Iterator

from dynts_batch.report.lines import Line
from dynts_batch.report.totals import Totals
from dynts_batch.report.units import money, percent


def endings_lines(totals: Totals) -> list[Line]:
    """Nothing for a run in which the model has ended all rows, once."""
    return [*_thinking_lines(totals), *_loop_lines(totals), *_retry_lines(totals)]


def _thinking_lines(totals: Totals) -> Iterator[Line]:
    cut = totals.endings.budget
    if not cut.num_rows:
        return
    note = f"by sampling.max_thinking_tokens={totals.config.sampling.max_thinking_tokens:,}"
    if totals.num_judged:
        note += f"; {percent(cut.num_right / cut.num_rows)} of them right"
    yield Line("thinking cut", f"{cut.num_rows:,} rows", note)


def _loop_lines(totals: Totals) -> Iterator[Line]:
    """The price of paying each loop to the limit, where it would have had no answer."""
    cut = totals.endings.loop
    if not cut.num_rows:
        return
    most = cut.num_rows * totals.config.sampling.max_new_tokens - cut.tokens
    note = f"at most {most:,} more tokens to the token limit"
    if totals.num_judged:
        note = f"{percent(cut.num_right / cut.num_rows)} of them right; {note}"
    yield Line("loops ended", f"{cut.num_rows:,} rows", note)
    usd, num_right = totals.dollars.total, (totals.num_correct or 0) - cut.num_right
    if usd is not None and num_right > 0 and totals.completion_tokens:
        usd *= 1 + most / totals.completion_tokens
        note = f"at most, for {num_right:,} right answers"
        yield Line("cost per right answer, loops paid", money(usd / num_right), note)


def _retry_lines(totals: Totals) -> Iterator[Line]:
    retries = totals.endings.retries
    if not retries.num_rows:
        return
    policy = totals.config.policy
    note = f"policy.retry_budget={policy.retry_budget:,} after {policy.budget:,}"
    if totals.num_judged:
        note += f"; {retries.num_right:,} of them right"
        if retries.num_right_before is not None:
            note += f", before {retries.num_right_before:,}"
    yield Line("run again", f"{retries.num_rows:,} rows", note)
    total, usd = totals.dollars.total, retries.usd
    if total is None or usd is None:
        return
    note = f"{percent(usd / total)} of all" if total else ""
    gained = retries.num_gained
    if gained is not None and gained > 0:
        note += f"; {money(usd / gained)} per right answer gained"
    yield Line("cost of running again", money(usd), note)
    if gained is not None and (num_right := (totals.num_correct or 0) - gained):
        note = f"{num_right:,} right answers"
        yield Line("cost per right answer without", money((total - usd) / num_right), note)
