"""One chart as its own SVG file, light or dark as its reader's theme: for a README or a slide."""

from __future__ import annotations

from collections.abc import Sequence

from dynts_batch.errors import InputError
from dynts_batch.report.charts import comparison_charts
from dynts_batch.report.measures import Measures
from dynts_batch.report.page.assets import asset


def render_picture(runs: Sequence[Measures]) -> str:
    """What a right answer costs in each of `runs`.

    Raises: InputError if no run knows it.
    """
    if all(run.totals.dollars.per_correct is None for run in runs):
        raise InputError(
            "a picture needs a run with prices (cost.usd_per_gpu_hour) and right answers"
        )
    font = "text { font-family: system-ui, sans-serif !important; }"
    style = f"<style>{asset('theme.css')} {font}</style>"
    start, end, rest = comparison_charts.cost_per_correct(runs).partition(">")
    # Its own background keeps it readable on any page.
    return f'{start} style="background: var(--card)"{end}{style}{rest}'
