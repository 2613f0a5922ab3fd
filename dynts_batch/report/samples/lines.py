"""What several samples of a question cost and saved, in words."""

from __future__ import annotations

from dynts_batch.config import SamplingConfig
from dynts_batch.report.lines import Line
from dynts_batch.report.measures import Measures, Right
from dynts_batch.report.samples.savings import Savings
from dynts_batch.report.units import money, percent

_OF_QUESTIONS: tuple[Right, ...] = ("right vote", "solved question")


def samples_lines(run: Measures) -> list[Line]:
    """Nothing for a run of one sample a question."""
    sampling = run.run.config.sampling
    if sampling.num_samples == 1:
        return []
    savings = run.savings
    lines = [] if savings is None else _savings_lines(savings, sampling)
    return lines + [line for what in _OF_QUESTIONS for line in _price_lines(run, what, savings)]


def _savings_lines(savings: Savings, sampling: SamplingConfig) -> list[Line]:
    rule = "one is right"
    if sampling.stop_when == "agreed":
        rule = f"its vote is decided by {sampling.stop_rule} at {sampling.stop_confidence:g}"
    shares = f"{savings.num_run:,} of {savings.num_samples:,}"
    plain = f"of about {savings.plain_tokens:,.0f} that all samples would have generated"
    return [
        Line("samples run", shares, f"a question gets no more once {rule}"),
        Line("tokens saved", percent(savings.tokens_share), plain),
    ]


def _price_lines(run: Measures, what: Right, savings: Savings | None) -> list[Line]:
    """Cost per question that came out right. A stopped run knows only that of its own rule."""
    is_known = savings is None or (what == "right vote") == (
        run.run.config.sampling.stop_when == "agreed"
    )
    usd, num = run.usd_per(what), run.num_right(what)
    if not is_known or usd is None or not num:
        return []
    note = f"{num:,.3g} of {len(run.questions):,} questions"
    if savings is not None and savings.plain_usd is not None:
        note += f"; about {money(savings.plain_usd / num)} if all samples were run"
    return [Line(f"cost per {what}", money(usd), note)]
