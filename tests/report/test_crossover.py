"""Laws of the crossover: it compares what ran together with what the full
cache would have held in the same bytes."""

import pytest
from report_runs import SAMPLE, write_run

from dynts_batch.report.lines import work_lines
from dynts_batch.report.measures import Measures, measure
from dynts_batch.report.run_rows import read_run
from dynts_batch.report.verdict import verdict


def _measures(tmp_path, *, arena_bytes: int, running: int, num_rows=11, overrides=()) -> Measures:
    sample = SAMPLE | {"arena_bytes": arena_bytes, "num_running": running}
    rows = [{"request_id": f"q{i}"} for i in range(num_rows)]
    path = write_run(tmp_path / "run", rows, [sample], overrides=overrides)
    return measure([read_run(path)])[0]


def test_the_full_cache_is_counted_in_the_same_bytes(tmp_path):
    # A token takes 10,000 / (10 + 91 - 1) = 100 bytes;
    # a sequence holds 10 + 91 / 2 = 55.5 on average, 120 at most.
    found = _measures(tmp_path, arena_bytes=60_000, running=20).totals.crossover
    assert found.paged == 60_000 // 5_550 == 10
    assert found.reserved == 60_000 // 12_000 == 5
    assert found.running == 20
    assert found.is_ahead


@pytest.mark.parametrize(
    ("running", "words"),
    [
        (11, "Eviction bought concurrency: 11 sequences"),
        (10, "Eviction bought no concurrency: 10 "),
    ],
)
def test_the_side_is_said_plainly(tmp_path, running, words):
    found = _measures(tmp_path, arena_bytes=60_000, running=running)
    assert verdict(found.totals).startswith(words)


def test_rows_that_all_fit_a_full_cache_are_too_few_to_tell(tmp_path):
    """After six rows that all fitted, the full cache was "the better choice"."""
    found = _measures(tmp_path, arena_bytes=60_000, running=6, num_rows=10)
    said = verdict(found.totals)
    assert said.startswith("Too few rows to tell whether eviction buys concurrency: 10 rows, and a")
    assert "better" not in said


def test_the_full_cache_is_its_own_reference_and_no_telemetry_is_no_verdict(tmp_path):
    full = _measures(tmp_path, arena_bytes=1, running=1, overrides=["policy.name=full"])
    assert "kept the full cache" in verdict(full.totals)
    silent = measure([read_run(write_run(tmp_path / "silent", [{}], ()))])[0]
    assert silent.totals.crossover is None
    assert verdict(silent.totals).endswith("is unknown: it has no telemetry.")


def test_a_run_that_no_sample_saw_at_work_ran_an_unknown_number_together_not_none(tmp_path):
    """A short one was said to have no telemetry, beside "sequences together 0"."""
    totals = _measures(tmp_path, arena_bytes=60_000, running=0).totals
    assert verdict(totals).endswith("is unknown: no sample was taken while it worked.")
    (line,) = [line for line in work_lines(totals) if line.name == "sequences together"]
    assert (line.value, line.note) == ("n/a", "no sample was taken while it worked")
