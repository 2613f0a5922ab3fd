"""Laws of the report over two engines: it says which one answers cheaper,
by factors that explain all of the difference."""

import io
import re

import pytest
from report_runs import SAMPLE, write_run
from rich.console import Console

from dynts_batch.report.comparison.reasons import Factors
from dynts_batch.report.measures import Measures, measure
from dynts_batch.report.page.page import render_page
from dynts_batch.report.run_rows import read_run
from dynts_batch.report.tables import show_report

BUSY = (SAMPLE | {"num_running": 9}, SAMPLE | {"num_running": 9, "time_s": 1_010.0, "busy_s": 9.0})
VLLM = ("engine.kind=vllm", "policy.name=full", "policy.budget=null")


def _runs(tmp_path, *more: list[dict]) -> list[Measures]:
    """Four right answers of five by the arena, three by vLLM, which lost caches;
    and `more` by a quantised full cache."""
    arena = [{"request_id": f"q{i}", "correct": i > 0} for i in range(5)]
    vllm = [
        {
            "request_id": f"q{i}",
            "correct": i > 1,
            "completion_tokens": 100,
            "device_s": 4.0,
            "cost_usd": 0.8,
            "num_preemptions": i,
            "recomputed_tokens": 100 * i,
        }
        for i in range(5)
    ]
    quantised = ("policy.name=full", "policy.quantize=int4")
    paths = [
        write_run(tmp_path / "a", arena, BUSY),
        write_run(tmp_path / "b", vllm, overrides=VLLM),
        *(write_run(tmp_path / f"c{n}", rows, overrides=quantised) for n, rows in enumerate(more)),
    ]
    return measure([read_run(path) for path in paths])


def _text(runs: list[Measures]) -> str:
    file = io.StringIO()
    show_report(runs, Console(file=file, width=80))
    return file.getvalue()


def test_the_factors_multiply_to_the_ratio_of_prices(tmp_path):
    arena, vllm = _runs(tmp_path)
    ratio = Factors.of(arena, "right answer").over(Factors.of(vllm, "right answer"))
    prices = [run.totals.dollars.per_correct for run in (arena, vllm)]
    assert ratio.product == pytest.approx(prices[0] / prices[1])
    assert ratio.s_per_token == pytest.approx((1.5 / 91) / (4 / 100))
    assert ratio.tokens_per_right == pytest.approx((91 * 5 / 4) / (100 * 5 / 3))
    assert ratio.usd_per_s == pytest.approx((0.25 / 1.5) / (0.8 / 4))


def test_the_report_says_why_one_engine_is_cheaper(tmp_path):
    runs = _runs(tmp_path)
    words = (
        "window 30 costs 0.23x of vllm: 0.41x the device time per token (9.0 sequences together"
        " against 4.0; the other was preempted 10 times), 0.68x the tokens per right answer, 0.83x"
        " the price of a device second."
    )
    assert words in _text(runs)
    assert words in render_page(runs)


def test_a_price_of_next_to_nothing_is_turned_round(tmp_path):
    """Beside a run that was 200 times dearer, a run "costs 0.00x" and "100% less"."""
    dear = {"cost_usd": 50.0, "device_s": 300.0}
    runs = measure(
        [
            read_run(write_run(tmp_path / "a", [{}])),
            read_run(write_run(tmp_path / "b", [dear], overrides=["policy.budget=40"])),
        ]
    )
    text = _text(runs)
    assert "window 30, $0.250 per right answer, 200 times cheaper than window 40." in text
    assert "window 30 is 200 times cheaper than window 40: 1/200 of the device time" in text
    assert "0.00x" not in text


def test_lost_caches_are_columns_of_the_comparison_and_a_sentence_of_the_run(tmp_path):
    runs = _runs(tmp_path)
    text = _text(runs)
    (line,) = [line for line in text.splitlines() if re.match(r"vllm .*\b10\b.*\b1,000\b", line)]
    assert line
    assert "10 times a sequence lost its cache, and 1,000 tokens were computed again." in _text(
        runs[1:]
    )
    assert "preempted" not in _text(_runs(tmp_path / "none", [{}])[::2])


def test_a_run_that_cannot_tell_what_was_computed_again_says_so(tmp_path):
    row = {"num_preemptions": 2, "recomputed_tokens": None}
    run = measure([read_run(write_run(tmp_path / "a", [row], overrides=VLLM))])
    assert "2 times a sequence lost its cache, and an unknown number of tokens" in _text(run)


def test_runs_are_named_after_what_sets_them_apart(tmp_path):
    assert [run.label for run in _runs(tmp_path, [{}])] == [
        "window 30",
        "vllm",
        "full+quantize=int4",
    ]
