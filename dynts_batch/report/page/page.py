"""The report as one HTML file: no network, no other file, readable from a disk, on a phone and on
paper.

Everything that comes from a run is untrusted, and Jinja's autoescape is on. Only the charts are
marked safe, since they escape their text themselves. The page's security policy runs no script but
its own.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from dynts_batch.config_file import to_yaml
from dynts_batch.report.charts import comparison_charts, run_charts
from dynts_batch.report.charts.canvas import with_own_ids
from dynts_batch.report.comparison.pairs import Pair, pairs_to_show
from dynts_batch.report.comparison.settings import settings_text
from dynts_batch.report.comparison.side_by_side import cheapest, conclusion, overview, why
from dynts_batch.report.endings.lines import endings_lines
from dynts_batch.report.lines import (
    Line,
    comparison_text,
    cost_lines,
    headline,
    quality_lines,
    warnings,
    work_lines,
)
from dynts_batch.report.measures import Measures
from dynts_batch.report.page.assets import asset
from dynts_batch.report.page.trace_view import MAX_CHARS, TraceView, view_trace
from dynts_batch.report.samples.lines import samples_lines
from dynts_batch.report.units import money
from dynts_batch.report.verdict import verdict

_NUM_TOP = 10
_NUM_TRACES = 8
_NUM_FAILED_SHOWN = 50


@dataclass(frozen=True)
class TopRow:
    """One of the slowest or dearest rows."""

    request_id: str
    sample_index: int
    correct: bool | None
    completion_tokens: int
    seconds: float | None
    cost_usd: float | None
    prompt: str | None


class RunSection:
    """What the page shows of one run."""

    def __init__(self, measures: Measures, index: int) -> None:
        self.measures, self.index = measures, index
        self.label, self.run = measures.label, measures.run
        self._slowest = measures.top_rows("decode_s", _NUM_TOP)
        self._dearest = measures.top_rows("cost_usd", _NUM_TOP)
        self._shown = _pick_traces(measures)
        is_failed = measures.run.is_equal("finish_reason", "error")
        self._failed = np.flatnonzero(is_failed)[:_NUM_FAILED_SHOWN].tolist()
        wanted = {*self._slowest, *self._dearest, *self._shown, *self._failed}
        self._texts = measures.run.texts(sorted(wanted))

    @property
    def headline(self) -> list[Line]:
        return headline(self.measures)

    @property
    def tables(self) -> list[tuple[str, list[Line]]]:
        found = [
            ("Right answers", quality_lines(self.measures)),
            ("Samples", samples_lines(self.measures)),
            ("Rows ended early or run again", endings_lines(self.measures.totals)),
            ("Cost", cost_lines(self.measures.totals)),
            ("Work and memory", work_lines(self.measures.totals)),
        ]
        return [(title, lines) for title, lines in found if lines]

    @property
    def verdict(self) -> str:
        return verdict(self.measures.totals)

    @property
    def warnings(self) -> list[str]:
        return warnings(self.measures)

    @cached_property
    def charts(self) -> list[tuple[str, Markup]]:
        run = self.measures
        traces = [self._texts[row]["token_trace"] for row in self._shown]
        drawn = [
            ("Length of answers", run_charts.lengths(run)),
            ("Eviction timeline", run_charts.eviction_timeline(run, [t for t in traces if t])),
            ("KV memory over time", run_charts.memory_over_time(run)),
            ("Throughput over time", run_charts.throughput_over_time(run)),
        ]
        return _placed(drawn, f"run{self.index}")

    @property
    def slowest(self) -> list[TopRow]:
        return [self._top_row(row) for row in self._slowest]

    @property
    def dearest(self) -> list[TopRow]:
        return [self._top_row(row) for row in self._dearest]

    @cached_property
    def error_types(self) -> list[tuple[str, int]]:
        return self.measures.totals.error_types.most_common()

    @property
    def errors(self) -> list[dict[str, Any]]:
        """The first failed rows."""
        return [self._texts[row] for row in self._failed]

    @cached_property
    def traces(self) -> list[TraceView]:
        prompts, thoughts = (
            self.run.numbers(name) for name in ("prompt_tokens", "reasoning_tokens")
        )
        return [
            view_trace(self._texts[row], int(prompts[row]), int(thoughts[row]))
            for row in self._shown
        ]

    @property
    def config_yaml(self) -> str:
        return to_yaml(self.run.config)

    def _top_row(self, row: int) -> TopRow:
        texts = self._texts[row]
        seconds = self.run.table["decode_s"][row].as_py()
        columns = ("request_id", "sample_index", "correct", "completion_tokens")
        return TopRow(
            **{name: texts[name] for name in columns},
            seconds=seconds,
            cost_usd=texts["cost_usd"],
            prompt=texts["prompt"],
        )


def render_page(runs: Sequence[Measures]) -> str:
    """The page of one run, or of several to compare."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"money": money, "cut": _cut}
    pairs = pairs_to_show(runs)
    script = asset("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.from_string(asset("page.html")).render(
        title=_title(runs),
        style=Markup(asset("theme.css") + asset("page.css")),  # this package's own files
        script=Markup(script),  # this package's own file
        script_sha256=digest,
        sections=[RunSection(run, index) for index, run in enumerate(runs)],
        comparison=_comparison_charts(runs, pairs) if len(runs) > 1 else [],
        overview=overview(runs),
        cheapest=cheapest(runs),
        conclusion=conclusion(runs),
        why=why(runs),
        settings=settings_text(runs),
        pairs=[(pair, comparison_text(pair.found)) for pair in pairs],
    )


def _title(runs: Sequence[Measures]) -> str:
    return runs[0].label if len(runs) == 1 else f"{len(runs)} runs compared"


def _comparison_charts(runs: Sequence[Measures], pairs: Sequence[Pair]) -> list[tuple[str, Markup]]:
    drawn = [
        ("What a right answer costs", comparison_charts.cost_per_correct(runs)),
        ("Accuracy against cost", comparison_charts.accuracy_against(runs, "cost")),
        ("Accuracy against memory", comparison_charts.accuracy_against(runs, "memory")),
        ("Differences between runs", comparison_charts.differences(pairs)),
    ]
    return _placed(drawn, "runs")


def _placed(charts: Sequence[tuple[str, str]], where: str) -> list[tuple[str, Markup]]:
    return [
        (title, Markup(with_own_ids(svg, f"{where}-{n}-")))  # drawn here, text escaped
        for n, (title, svg) in enumerate(charts)
    ]


def _pick_traces(measures: Measures) -> list[int]:
    """Positions of rows to show: traced ones and, if these are few, others from all over
    the run."""
    rows = measures.run.traced_rows(_NUM_TRACES)
    others = np.flatnonzero(measures.run.is_run())
    spread = others[np.linspace(0, len(others) - 1, min(_NUM_TRACES, len(others))).astype(int)]
    return [*rows, *(row for row in spread.tolist() if row not in rows)][:_NUM_TRACES]


def _cut(text: str | None, max_chars: int = MAX_CHARS) -> str:
    if text is None:
        return ""
    return text if len(text) <= max_chars else f"{text[:max_chars]}\u2026"
