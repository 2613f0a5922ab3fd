"""Laws of the forecast: it holds the truth, says what it does not know,
and leaves the run alone."""

import os
import random
import re

import pyarrow as pa
import pytest
from fake_run import make_config, write_config, write_problems
from hypothesis import given, settings
from hypothesis import strategies as st
from local_fleet import LocalFleet
from local_run import finish_run

from dynts_batch.config import Config, RunConfig, WorkersConfig
from dynts_batch.errors import ConfigError
from dynts_batch.report.totals import add_up
from dynts_batch.runner import forecast as forecasting
from dynts_batch.runner.driver.driver import Driver
from dynts_batch.runner.extrapolation import Interval, Memory, total_of
from dynts_batch.runner.forecast import forecast
from dynts_batch.runner.messages import Job


def test_the_interval_holds_the_truth_about_19_times_in_20():
    dice = random.Random(1)
    population = [dice.expovariate(0.001) for _ in range(2000)]
    hits = 0
    for _ in range(400):
        interval = total_of(dice.sample(population, 64), 2000)
        hits += interval.low <= sum(population) <= interval.high
    assert 0.90 <= hits / 400 <= 0.98


@settings(max_examples=25)
@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=50))
def test_a_sample_of_everything_is_exact(values):
    interval = total_of(values, len(values))
    assert interval.low == interval.high == pytest.approx(sum(values))


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(7.2, ("seconds", "7.2")), (90, ("minutes", "1.5")), (5400, ("hours", "1.5"))],
)
def test_a_plan_names_time_in_a_unit_that_shows_it_and_what_was_all_rows(seconds, shown):
    """It said "device hours 0.002007 to 0.003128" and "413 (95%: 413 to 413)"."""
    unit, amount = shown
    everything = total_of([seconds / 4] * 4, 4)
    assert forecasting._device_time(everything) == (f"device {unit}", f"{amount} (all rows)")
    part = total_of([seconds / 4, seconds / 4], 4)
    assert forecasting._device_time(part)[1] == f"{amount} (95%: {amount} to {amount})"


def test_rows_at_once_are_those_of_the_last_attempts():
    """device_s holds both, and prefill_s and decode_s the second one's."""
    rows = pa.table(
        {
            "device_s": [3.0, 1.0],
            "prefill_s": [0.5, 0.5],
            "decode_s": [1.5, 1.5],
            "first_attempt": [{"device_s": 2.0}, None],
        }
    )
    assert forecasting._mean_batch(rows) == 4.0 / 2.0


@pytest.mark.parametrize(
    ("num_gpus", "num_devices", "hours"), [(4, 4, 10), (0.5, 1, 20), (None, 1, 10)]
)
def test_the_time_is_that_of_workers_with_so_many_devices(tmp_path, num_gpus, num_devices, hours):
    """8 rows were decoded together for an hour by one worker, and there are 80."""
    config = make_config(
        tmp_path, 80, workers={"num_gpus": num_gpus, "max": 1}, memory={"max_seqs": 8}
    )
    hour = [num_devices * 3600 / 8] * 8
    nulls = pa.nulls(8, pa.struct({"device_s": pa.float64(), "completion_tokens": pa.int64()}))
    rows = pa.table(
        {
            **{"device_s": hour, "prefill_s": [0.0] * 8, "decode_s": [3600.0] * 8},
            **{"prompt_tokens": [9] * 8, "completion_tokens": [9] * 8, "first_attempt": nulls},
            "energy_j": pa.nulls(8, pa.float64()),
            "finish_reason": ["stop"] * 8,
            "request_id": [str(i) for i in range(8)],
        }
    )
    memory = Memory(arena_bytes=20_000, max_seqs=8, most_full_bytes=4_000)
    lines = dict(
        forecasting.forecast_lines(rows, memory, config, num_units=80, num_devices=num_devices)
    )
    assert lines["batch of the sample"] == "8.0 rows at once on average, of the run's 8"
    assert lines["time on 1 worker"].startswith(f"{hours}:00:00")


@pytest.mark.parametrize(
    ("wanted_seqs", "rows_per_worker", "verdict"),
    [
        (None, 100, "yes: 20 rows fit at once; without eviction 5 would"),
        (20, 100, "no: memory.max_seqs (20) bounds the batch"),
        (40, 100, "yes: 20 rows fit at once"),
        (None, 20, "no: all 20 rows of a worker fit at once"),
    ],
)
def test_it_says_whether_memory_is_the_limit(wanted_seqs, rows_per_worker, verdict):
    memory = Memory(arena_bytes=20_000, max_seqs=20, most_full_bytes=4_000)
    found = memory.verdict(wanted_seqs=wanted_seqs, rows_per_worker=rows_per_worker)
    assert found.startswith(verdict)


def _drive_without_ray(run, address, console):
    fleet = LocalFleet(Job(run.config, run.source.schema, 0, os.getcwd()))
    quiet = {"show": lambda state: None, "warn": lambda text: None}
    assert Driver(run, fleet, num_workers=run.config.workers.max, **quiet).run(lambda: False)


def _bounds(out: str) -> tuple[float, float]:
    """The two ends of what is printed in dollars."""
    (text,) = [line for line in out.splitlines() if "dollars" in line]
    low, high = re.findall(r"\$([\d.,e+-]+)", text)[-2:]
    return float(low.replace(",", "")), float(high.replace(",", ""))


def test_a_plan_comes_near_what_the_run_takes_and_costs_nothing_twice(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(forecasting, "drive", _drive_without_ray)
    price = {"usd_per_gpu_hour": 3600.0}
    model = {"name": "fake:step_s=1,simulated=true"}
    problems = write_problems(tmp_path / "problems.jsonl", 400)
    config = str(write_config(tmp_path, problems, model=model, cost=price))
    assert forecast(config, [], num_rows=100) == 0
    first = capsys.readouterr()
    assert "trying 100 of 400 rows" in first.err
    assert not (tmp_path / "run").exists()
    assert forecast(config, [], num_rows=100) == 0
    second = capsys.readouterr()
    assert second.out == first.out
    assert second.err == ""

    assert forecast(config, ["cost.usd_per_gpu_hour=7200"], num_rows=100) == 0
    at_twice_the_price = capsys.readouterr()
    assert at_twice_the_price.err == ""
    assert _bounds(at_twice_the_price.out) == pytest.approx(
        [2 * bound for bound in _bounds(first.out)], rel=1e-3
    )

    run = finish_run(make_config(tmp_path, 400, model=model, cost=price))
    dollars = add_up(run).dollars.total
    assert "(95%: $" in first.out
    low, high = _bounds(first.out)
    assert low <= dollars <= high
    assert "KV" in first.out
    assert "time on 1 worker " in first.out


def test_a_plan_forgets_the_rows_of_a_larger_one_that_was_stopped(tmp_path, capsys, monkeypatch):
    """Those that are there are its shortest."""
    monkeypatch.setattr(forecasting, "drive", _drive_without_ray)
    model = {"name": "fake:step_s=1,simulated=true"}
    problems = write_problems(tmp_path / "problems.jsonl", 100)
    config = str(write_config(tmp_path, problems, model=model))
    assert forecast(config, [], num_rows=30) == 0
    assert "from a sample of 30" in capsys.readouterr().out
    assert forecast(config, [], num_rows=8) == 0
    assert "from a sample of 8" in capsys.readouterr().out


@pytest.mark.parametrize(
    "num_rows", [20, *(pytest.param(n, marks=pytest.mark.long) for n in (8, 60))]
)
def test_a_sample_too_small_for_the_batch_gives_bounds_that_hold_the_truth(
    num_rows, tmp_path, capsys, monkeypatch
):
    """Its rows, spread over all workers, shared a step with few others each,
    and 95% intervals lay at several times the truth."""
    monkeypatch.setattr(forecasting, "drive", _drive_without_ray)
    groups = {
        "model": {"name": "fake:step_s=1,simulated=true"},
        "cost": {"usd_per_gpu_hour": 3600.0},
        "memory": {"max_seqs": 40},
        "workers": {"min": 1, "max": 4, "num_cpus": 0.25},
        "run": {"dir": str(tmp_path / "run"), "shard_rows": 5},
    }
    problems = write_problems(tmp_path / "problems.jsonl", 800)
    assert forecast(str(write_config(tmp_path, problems, **groups)), [], num_rows=num_rows) == 0
    out = capsys.readouterr().out
    assert "95%: $" not in out
    assert "of the run's 40" in out
    low, high = _bounds(out)
    run = finish_run(make_config(tmp_path, 800, **groups))
    assert low <= add_up(run).dollars.total <= high
    assert "generated tokens" in out
    assert "(95%:" in out  # of tokens, which no batch changes


@given(st.floats(0, 10), st.floats(0, 10), st.integers(1, 100), st.integers(0, 100))
def test_bounds_hold_for_every_step_that_takes_longer_for_more_rows(fixed, per_row, batch, more):
    def device_s(num_rows):
        return (fixed + per_row * num_rows) / num_rows

    fuller = batch + more
    found = Interval(device_s(batch), device_s(batch), device_s(batch)).in_fuller_batch(
        batch / fuller
    )
    assert found.low <= device_s(fuller) * (1 + 1e-9)
    assert device_s(fuller) <= found.high * (1 + 1e-9)


def test_a_sample_beside_a_uri_with_options_is_not_the_run_itself():
    config = Config(run=RunConfig("s3://b/r1/?region=us-east-1"))
    path = str(forecasting._for_sample(config, is_local=True).run.dir)
    assert re.fullmatch(r"s3://b/r1-plan-[0-9a-f]{8}\?region=us-east-1", path)


def test_a_sample_of_one_row_is_refused():
    with pytest.raises(ConfigError, match="--rows must be at least 2"):
        forecast("config.yaml", [], num_rows=1)


def test_the_sample_has_as_many_cores_as_a_worker_of_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Alone on the machine it had all of them, and the forecast was four times too good."""
    monkeypatch.setattr("torch.get_num_threads", lambda: 8)
    monkeypatch.setattr("dynts_batch.runner.cluster._total_here", lambda: {"CPU": 8.0, "GPU": 0.0})
    asked = WorkersConfig(max=4)
    for wanted, is_local, num_cpus in (
        (asked, True, 2),
        (asked, False, 1),
        (WorkersConfig(max=4, num_cpus=0), True, 0),
        (WorkersConfig(min=99, max=99), True, 1),  # on a cluster later; the sample is one worker
    ):
        config = Config(run=RunConfig("out"), workers=wanted)
        workers = forecasting._for_sample(config, is_local=is_local).workers
        assert (workers.max, workers.num_cpus) == (1, num_cpus)
