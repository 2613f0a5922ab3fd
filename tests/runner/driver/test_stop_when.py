"""Laws of sampling.stop_when over a whole run:
every unit has its row, and which ones are run depends on answers alone."""

import dataclasses
import json
import os
import random
import re
from collections import Counter
from itertools import groupby

import pytest
from fake_run import make_config, stable_rows
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from local_fleet import LocalFleet
from local_run import finish_run
from simulated_fleet import World, simulate

from dynts_batch.data.export import export
from dynts_batch.data.progress import read_progress
from dynts_batch.data.run_dir import RunDir
from dynts_batch.errors import ConfigError, FingerprintError
from dynts_batch.grading.stopping import Sample, Stopping
from dynts_batch.report.status import render
from dynts_batch.report.totals import add_up
from dynts_batch.runner import forecast as forecasting
from dynts_batch.runner.driver.driver import Driver
from dynts_batch.runner.frontier import _check as check_frontier
from dynts_batch.runner.messages import Job
from dynts_batch.runner.prepared_run import prepare
from dynts_batch.runner.regrade import regrade
from dynts_batch.runner.shard_plan import ShardPlan

NUM_SAMPLES = 12


def _config(folder, stop_when, *, num_rows=12, special=None, **groups):
    folder.mkdir(exist_ok=True)
    sampling = {"num_samples": NUM_SAMPLES, "temperature": 0.8, "max_new_tokens": 8}
    if stop_when is not None:
        sampling["stop_when"] = stop_when
    run = {"shard_rows": 2 * NUM_SAMPLES, "dir": str(folder / "run"), **groups.pop("run", {})}
    sampling |= groups.pop("sampling", {})
    return make_config(folder, num_rows, special, sampling=sampling, run=run, **groups)


def _drive(config, *, num_workers, dies=lambda call: False, is_stopped=lambda: False):
    run = prepare(config, is_local=True)
    fleet = LocalFleet(Job(run.config, run.source.schema, 0, os.getcwd()), dies=dies, report_s=0.05)
    quiet = {"show": lambda state: None, "warn": lambda text: None}
    return Driver(run, fleet, num_workers=num_workers, **quiet).run(is_stopped)


def _by_question(rows):
    return {key: list(found) for key, found in groupby(rows, key=lambda row: row["request_id"])}


def _expected(plain, stopping):
    """The rows of a run with `stopping`, from those of one that ran all samples."""
    expected = []
    for rows in _by_question(plain).values():
        samples = []
        for row in rows:
            is_needed = bool(stopping.num_missing(samples))
            text = row["reasoning"] if is_needed else None
            expected.append((row["request_id"], row["sample_index"], text))
            if is_needed:
                samples.append(Sample.of(row["extracted_answer"], row["correct"]))
    return expected


@pytest.mark.parametrize("stop_when", ["agreed", "right"])
def test_the_rows_that_are_run_are_those_of_the_plain_run_up_to_the_decision(tmp_path, stop_when):
    plain = stable_rows(finish_run(_config(tmp_path / "plain", None)).path)
    config = _config(tmp_path / "some", stop_when)
    rows = stable_rows(finish_run(config).path)
    found = [(row["request_id"], row["sample_index"], row["reasoning"]) for row in rows]
    assert found == _expected(plain, Stopping.from_config(config.sampling))
    reasons = [row["finish_reason"] for row in rows]
    assert 0.2 < reasons.count("skipped") / len(rows) < 0.95
    of_skipped = [row for row in rows if row["finish_reason"] == "skipped"]
    assert {row["completion_tokens"] for row in of_skipped} == {0}
    assert {row["correct"] for row in of_skipped} == {None}


@pytest.mark.parametrize("stop_when", ["agreed", "right"])
def test_runs_in_which_workers_and_drivers_die_equal_an_undisturbed_one(tmp_path, stop_when):
    undisturbed = stable_rows(finish_run(_config(tmp_path / "plain", stop_when)).path)
    for seed in range(3):
        dice = random.Random(seed)
        run = {"checkpoint_s": dice.choice([0.001, 60.0]), "max_attempts": 1_000}
        config = _config(tmp_path / str(seed), stop_when, run=run)
        for num_starts in range(200):
            share = 0.2 if num_starts < 20 else 0.0
            is_complete = _drive(
                config,
                num_workers=dice.randint(1, 4),
                dies=lambda call, p=share, dice=dice: dice.random() < p,
                is_stopped=lambda p=share, dice=dice: dice.random() < p / 4,
            )
            if is_complete:
                break
        assert stable_rows(config.run.dir) == undisturbed


def test_a_sample_that_kills_is_an_error_row_and_its_question_goes_on_without_it(tmp_path):
    """It is sought one unit at a time, which the later samples of its question have to wait for."""
    config = _config(
        tmp_path, "agreed", num_rows=6, special={2: "[[raise]]"}, run={"max_attempts": 2}
    )
    assert _drive(config, num_workers=2)
    of = _by_question(stable_rows(config.run.dir))
    assert {row["error_type"] for row in of.pop("p2")} == {"QuarantinedError"}
    for rows in of.values():
        assert "error" not in {row["finish_reason"] for row in rows}
        assert sum(row["finish_reason"] != "skipped" for row in rows) >= 4


def test_a_row_that_cannot_be_run_is_an_error_row_for_each_of_its_samples(tmp_path):
    config = _config(tmp_path, "agreed", num_rows=4, special={1: " "})
    of = _by_question(stable_rows(finish_run(config).path))
    assert [row["error_type"] for row in of["p1"]] == ["BadRowError"] * NUM_SAMPLES


def test_retrying_failed_rows_looks_again_at_what_was_skipped(tmp_path, monkeypatch):
    """A failed sample has no vote: the one that takes its place may open the vote again,
    or close it."""
    from dynts_batch.testing.fake_engine import FakeEngine

    undisturbed = stable_rows(finish_run(_config(tmp_path / "plain", "agreed")).path)
    add_request = FakeEngine.add_request

    def stumble(self, request):
        if request.sample_index % 3 == 1:
            raise ZeroDivisionError("a tokenizer's bug")
        add_request(self, request)

    config = _config(tmp_path / "run", "agreed")
    with monkeypatch.context() as patch:
        patch.setattr(FakeEngine, "add_request", stumble)
        finish_run(config)
    run = dataclasses.replace(config.run, retry_failed=True)
    rows = stable_rows(finish_run(dataclasses.replace(config, run=run)).path)
    assert "error" not in {row["finish_reason"] for row in rows}
    for row, expected in zip(rows, undisturbed, strict=True):
        # What the first start ran stays, though the others would have been enough.
        assert row == expected or expected["finish_reason"] == "skipped"


def test_a_run_that_is_stopped_between_samples_resumes(tmp_path):
    undisturbed = stable_rows(finish_run(_config(tmp_path / "plain", "agreed")).path)
    config = _config(tmp_path / "run", "agreed")
    num_calls = iter(range(10**6))
    assert not _drive(config, num_workers=1, is_stopped=lambda: next(num_calls) > 4)
    assert _drive(config, num_workers=3)
    assert stable_rows(config.run.dir) == undisturbed


def test_status_export_and_a_new_judgement_know_what_was_not_needed(tmp_path):
    config = _config(tmp_path, "right", num_rows=6, model={"name": "fake:step_s=1,simulated=true"})
    run_dir = finish_run(config)
    rows = stable_rows(run_dir.path)
    num_skipped = sum(row["finish_reason"] == "skipped" for row in rows)
    progress = read_progress(run_dir, 0.0)
    assert (progress.finished_rows, progress.skipped_rows) == (len(rows), num_skipped)
    assert f"not needed  {num_skipped} (sampling.stop_when)" in render(run_dir.path, progress)

    for format_ in ("jsonl", "openai"):
        target = tmp_path / format_
        assert export(run_dir, str(target), format_, file_bytes=1 << 20) == len(rows)
    (file,) = (tmp_path / "openai").iterdir()
    responses = [json.loads(line)["response"] for line in file.read_text().splitlines()]
    num_choices = sum(len(response["body"]["choices"]) for response in responses)
    assert num_choices == len(rows) - num_skipped

    _, regraded = regrade(run_dir.path, ["grading.text=completion"])
    assert regraded.num_graded == len(rows) - num_skipped
    assert regraded.num_changed == 0


def test_a_plan_draws_whole_questions_and_comes_near_what_the_run_takes(
    tmp_path, capsys, monkeypatch
):
    model = {"name": "fake:step_s=1,simulated=true"}
    config = _config(tmp_path, "agreed", num_rows=60, model=model)
    path = tmp_path / "config.yaml"
    monkeypatch.setattr(forecasting, "drive", lambda run, *others: _finish_part(run))
    assert forecasting.forecast(str(path), [], num_rows=20 * NUM_SAMPLES) == 0
    out = capsys.readouterr().out
    totals = add_up(finish_run(config))
    (line,) = [line for line in out.splitlines() if "generated tokens" in line]
    _, low, high = (int(text.replace(",", "")) for text in re.findall(r"\d[\d,]{2,}", line))
    assert low <= totals.completion_tokens <= high
    assert high < 1.4 * low


def _finish_part(run):
    fleet = LocalFleet(Job(run.config, run.source.schema, 0, os.getcwd()))
    quiet = {"show": lambda state: None, "warn": lambda text: None}
    assert Driver(run, fleet, num_workers=1, **quiet).run(lambda: False)


def test_a_frontier_is_refused(tmp_path):
    config = _config(tmp_path, "agreed")
    with pytest.raises(ConfigError, match=r"a frontier needs sampling\.stop_when=null"):
        check_frontier([config])


def test_a_resume_under_another_rule_is_refused(tmp_path):
    config = _config(tmp_path, "agreed")
    finish_run(config)
    sampling = dataclasses.replace(config.sampling, stop_confidence=0.9)
    with pytest.raises(FingerprintError, match="stop_confidence"):
        prepare(dataclasses.replace(config, sampling=sampling), is_local=True)


def test_traced_rows_are_such_as_are_run(tmp_path):
    config = _config(tmp_path, "right", run={"trace_rows": 5})
    finish_run(config)
    rows = [row for batch in RunDir(config.run.dir).read_rows() for row in batch.to_pylist()]
    assert sum(row["token_trace"] is not None for row in rows) == 5


_WORLDS = st.builds(
    World,
    plan=st.builds(
        lambda num_rows, num_samples, rows_per_shard: ShardPlan(
            num_rows, num_samples, num_samples * rows_per_shard, in_turn=True
        ),
        st.integers(1, 12),
        st.integers(1, 5),
        st.integers(1, 3),
    ),
    num_nodes=st.integers(1, 3),
    slots=st.integers(1, 4),
    max_workers=st.integers(1, 4),
    max_attempts=st.integers(2, 4),
    max_seqs=st.integers(1, 6),
    has_worked=st.booleans(),
    seed=st.integers(0, 2**32),
)


@settings(max_examples=150)
@given(
    world=_WORLDS,
    poison=st.sets(st.integers(0, 59), max_size=3),
    right=st.sets(st.integers(0, 59)),
    is_bad=st.booleans(),
)
def test_bad_requests_and_a_bad_node_lose_no_unit_of_a_run_in_turns(world, poison, right, is_bad):
    """A sample that kills is not in flight before its turn,
    and holds back the later ones of its question alone."""
    plan = world.plan
    poison, right = (frozenset(u % plan.num_units for u in units) for units in (poison, right))
    if is_bad:
        assume(plan.num_rows > 1)  # else one request may be all that can be tried
        poison = frozenset(sorted(poison)[:1])
        world = dataclasses.replace(
            world, num_nodes=max(2, world.num_nodes), bad_nodes=frozenset({"n1"})
        )
    outcome = simulate(dataclasses.replace(world, poison=poison, right=right))
    skipped = set()
    for row in range(plan.num_rows):
        units = range(row * plan.num_samples, (row + 1) * plan.num_samples)
        first = next((unit for unit in units if unit in right - poison), units[-1])
        skipped |= set(range(first + 1, units.stop))
    assert outcome.rows == Counter(range(plan.num_units))
    assert outcome.skipped == skipped
    assert outcome.failed == poison - skipped
