"""What a right answer costs, as a picture of its own: for a README or a slide."""

from __future__ import annotations

from collections.abc import Sequence

from dynts_batch.errors import InputError
from dynts_batch.report.charts import comparison_charts
from dynts_batch.report.charts.document import document
from dynts_batch.report.measures import Measures


def render_picture(runs: Sequence[Measures]) -> str:
    """What a right answer costs in each of `runs`.

    Raises: InputError if no run knows it.
    """
    if all(run.totals.dollars.per_correct is None for run in runs):
        raise InputError(
            "a picture needs a run with prices (cost.usd_per_gpu_hour) and right answers"
        )
    return document(comparison_charts.cost_per_correct(runs))
