"""Laws of policy.retry_budget: which rows run again depends on their own outcomes,
and a row has both attempts."""

import dataclasses
import random
from pathlib import Path

import pyarrow as pa
import pytest
from fake_run import make_config, stable_rows
from local_run import driver_of, finish_run

from dynts_batch.config import PolicyConfig
from dynts_batch.config_file import load_config
from dynts_batch.data.export import export
from dynts_batch.data.first_attempt import needs_retry
from dynts_batch.data.progress import read_progress
from dynts_batch.data.run_dir import RunDir
from dynts_batch.errors import ConfigError, FingerprintError
from dynts_batch.kvcache.policies import make_policy
from dynts_batch.report.endings.lines import endings_lines
from dynts_batch.report.status import render
from dynts_batch.report.totals import add_up
from dynts_batch.report.units import money
from dynts_batch.runner import forecast as forecasting
from dynts_batch.runner.prepared_run import prepare
from dynts_batch.runner.reason import _limits
from dynts_batch.runner.retry import has_work, parts_of

CONFIGS = Path(__file__).parents[3] / "configs"
PRICES = {"usd_per_gpu_hour": 1.0}
FIRST, SECOND = 10, 14


def _config(folder, *, budget=FIRST, retry_budget=SECOND, num_rows=23, **groups):
    folder.mkdir(exist_ok=True)
    policy = {"name": "window", "budget": budget, "retry_budget": retry_budget, "window_size": 4}
    model = {"name": "fake:step_s=1,simulated=true"}
    groups = {"model": model, "cost": PRICES, **groups}
    return make_config(folder, num_rows, policy=policy, **groups)


def _rows(run_dir):
    return pa.Table.from_batches(list(RunDir(str(run_dir)).read_rows())).to_pylist()


def test_a_row_is_that_of_a_run_with_its_own_budget_and_holds_what_both_attempts_took(tmp_path):
    special = {3: "word " * 12}  # fits the second budget only
    plain = {"special": special, "retry_budget": None}
    first = _rows(finish_run(_config(tmp_path / "first", **plain)).path)
    second = _rows(finish_run(_config(tmp_path / "second", budget=SECOND, **plain)).path)
    both = _rows(finish_run(_config(tmp_path / "both", special=special)).path)
    assert len(both) == len(first)
    is_again = [row["first_attempt"] is not None for row in both]
    assert is_again == [row["finish_reason"] in ("length", "error") for row in first]
    assert {row["finish_reason"] for row in first} == {"stop", "length", "error"}
    stable = dict.fromkeys(
        ["request_id", "completion_token_ids", "answer", "correct", "peak_cache_len"]
    )
    for row, a, b in zip(both, first, second, strict=True):
        expected = a if row["first_attempt"] is None else b
        assert {name: row[name] for name in stable} == {name: expected[name] for name in stable}
        if row["first_attempt"] is not None:
            facts = row["first_attempt"]
            names = ("finish_reason", "correct", "completion_tokens")
            assert [facts[name] for name in names] == [a[name] for name in names]
            assert facts["budget"] == FIRST
            # The shares of a device depend on who shares it, but never exceed its time.
            assert 0 <= facts["cost_usd"] < row["cost_usd"]
            assert row["cost_usd"] == pytest.approx(row["device_s"] / 3600)


def _outcome(**row):
    usual = {
        "request_id": "q1", "finish_reason": "stop", "correct": False, "answer": "It is 3.",
        "extracted_answer": "3", "evicted_tokens": 7, "error_type": None, "first_attempt": None,
    }  # fmt: skip
    return {**usual, **row}


@pytest.mark.parametrize(
    ("row", "kind", "is_due"),
    [
        ({}, "math", False),
        ({"finish_reason": "length"}, "math", True),
        ({"finish_reason": "loop"}, "math", True),
        ({"finish_reason": "error", "answer": None}, "math", False),
        ({"finish_reason": "error", "error_type": "PromptTooLongError"}, "math", True),
        ({"finish_reason": "skipped", "answer": None}, "math", False),
        ({"answer": None}, "math", True),
        ({"answer": " \n"}, "none", True),
        ({"extracted_answer": None}, "math", True),
        ({"extracted_answer": None}, "my:grader", False),
        ({"extracted_answer": None, "correct": None}, "math", False),
        ({"finish_reason": "length", "evicted_tokens": 0}, "math", False),
        ({"finish_reason": "length", "first_attempt": {"budget": 5}}, "math", False),
    ],
)
def test_a_row_runs_again_if_it_was_cut_off_or_has_no_answer_and_lost_tokens(row, kind, is_due):
    """A function's verdict decides nothing: to run wrong rows again would
    be to look at the answers."""
    schema = {
        "request_id": pa.string(), "finish_reason": pa.string(), "correct": pa.bool_(),
        "answer": pa.string(),
        "extracted_answer": pa.string(), "evicted_tokens": pa.int64(), "error_type": pa.string(),
        "first_attempt": pa.struct([("budget", pa.int64())]),
    }  # fmt: skip
    table = pa.Table.from_pylist([_outcome(**row)], pa.schema(list(schema.items())))
    assert needs_retry(table, kind).to_pylist() == [is_due]


def test_questions_that_are_decided_get_no_second_attempts(tmp_path):
    sampling = {"num_samples": 8, "temperature": 0.8, "max_new_tokens": 20}
    run = {"shard_rows": 16}
    questions = {}
    for stop_when in (None, "right"):
        folder = tmp_path / str(stop_when)
        its = {"sampling": {**sampling, "stop_when": stop_when}, "num_rows": 30}
        config = _config(folder, run={**run, "dir": str(folder / "run")}, **its)
        rows = _rows(finish_run(config).path)
        questions[stop_when] = {row["request_id"] for row in rows if row["first_attempt"]}
        decided = {row["request_id"] for row in rows if row["finish_reason"] == "skipped"}
        assert not questions[stop_when] & decided
    assert decided & questions[None]


@pytest.mark.parametrize("stop_when", [None, "agreed"])
def test_runs_in_which_workers_and_drivers_die_equal_an_undisturbed_one(tmp_path, stop_when):
    sampling = {"num_samples": 6, "temperature": 0.8, "stop_when": stop_when, "max_new_tokens": 20}
    groups = {"sampling": sampling, "num_rows": 12}
    run = {"shard_rows": 12, "max_attempts": 1_000}
    settled = finish_run(
        _config(
            tmp_path / "settled", run={**run, "dir": str(tmp_path / "settled" / "run")}, **groups
        )
    )
    undisturbed = _settled(settled.path)
    assert any(first is not None for _, first in undisturbed)
    for seed in range(3):
        dice = random.Random(seed)
        folder = tmp_path / str(seed)
        its = {**run, "dir": str(folder / "run"), "checkpoint_s": dice.choice([0.001, 60.0])}
        config = _config(folder, run=its, **groups)
        for num_starts in range(200):
            share = 0.2 if num_starts < 20 else 0.0
            if _drive(config, dice, share):
                break
        assert _settled(config.run.dir) == undisturbed
        assert not has_work(prepare(config, is_local=True))


def _drive(config, dice, share):
    """One start, in which everything may die; whether it came to its end."""
    for part in parts_of(prepare(config, is_local=True)):
        driver = driver_of(
            part,
            num_workers=dice.randint(1, 4),
            dies=lambda call: dice.random() < share,
            report_s=0.05,
        )
        if not driver.run(lambda: dice.random() < share / 4):
            return False
    return True


def _settled(path):
    """What must be equal between two runs: the rows, and which of them ran again, after what."""
    names = ("finish_reason", "correct", "budget", "completion_tokens")
    firsts = [row["first_attempt"] for row in _rows(path)]
    facts = [first and tuple(first[name] for name in names) for first in firsts]
    return list(zip(stable_rows(path), facts, strict=True))


def test_a_finished_run_may_add_retries_and_no_other_budget_afterwards(tmp_path):
    undisturbed = _settled(finish_run(_config(tmp_path / "both")).path)
    config = _config(tmp_path / "run", retry_budget=None)
    finish_run(config)
    policy = dataclasses.replace(config.policy, retry_budget=SECOND)
    later = dataclasses.replace(config, policy=policy)
    assert _settled(finish_run(later).path) == undisturbed
    for other in (SECOND + 1, None):
        changed = dataclasses.replace(policy, retry_budget=other)
        with pytest.raises(FingerprintError, match="retry_budget"):
            prepare(dataclasses.replace(config, policy=changed), is_local=True)


def test_status_says_how_many_rows_wait_and_export_takes_the_second_attempts(tmp_path):
    config = _config(tmp_path)
    run = prepare(config, is_local=True)
    parts = parts_of(run)
    assert driver_of(next(parts)).run(lambda: False)
    num = sum(row["finish_reason"] == "length" for row in _rows(config.run.dir))
    progress = read_progress(run.run_dir, 0.0)
    assert (progress.retry_rows, progress.sealed) == (num, False)
    assert progress.eta_s != 0.0
    assert f"to retry    {num} (policy.retry_budget)" in render(run.run_dir.path, progress)
    finish_run(config)
    assert read_progress(run.run_dir, 0.0).retry_rows == 0
    assert export(run.run_dir, str(tmp_path / "out"), "jsonl", file_bytes=1 << 20) == 23


def test_a_finished_run_that_adds_retries_is_not_finished_until_they_are(tmp_path):
    run_dir = finish_run(_config(tmp_path, retry_budget=None))
    assert read_progress(run_dir, 0.0).sealed
    config = _config(tmp_path)
    prepare(config, is_local=True)
    assert not read_progress(run_dir, 0.0).sealed
    assert read_progress(finish_run(config), 0.0).sealed


def test_failed_rows_are_run_again_with_the_first_budget(tmp_path, monkeypatch):
    from dynts_batch.testing.fake_engine import FakeEngine

    undisturbed = _settled(finish_run(_config(tmp_path / "plain")).path)
    add_request = FakeEngine.add_request

    def stumble(self, request):
        if request.request_id.endswith("1"):
            raise ZeroDivisionError("a tokenizer's bug")
        add_request(self, request)

    config = _config(tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(FakeEngine, "add_request", stumble)
        finish_run(config)
    run = dataclasses.replace(config.run, retry_failed=True)
    assert _settled(finish_run(dataclasses.replace(config, run=run)).path) == undisturbed


def test_hours_of_the_first_part_count_against_the_cap(tmp_path):
    from dynts_batch.runner.driver.limits import Used

    run = prepare(
        _config(tmp_path, run={"max_hours": 1.0, "dir": str(tmp_path / "run")}), is_local=True
    )
    limits = _limits(run, spent_hours=0.75)
    assert limits.reached(Used(hours=0.2)) is None
    assert "after 1.0500 hours" in (limits.reached(Used(hours=0.3)) or "")
    assert limits.left_s(Used(hours=0.2)) == pytest.approx(0.05 * 3600)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"budget": 200, "retry_budget": 200}, r"must be above policy\.budget \(200\), or null, got"
                                               r" 200"),
        ({"name": "full", "retry_budget": 300}, "must be null for policy 'full'.*got 300"),
    ],
)  # fmt: skip
def test_a_retry_budget_that_gives_no_more_room_is_refused(settings, message):
    with pytest.raises(ConfigError, match=rf"policy\.retry_budget {message}"):
        make_policy(PolicyConfig(**{"name": "window", "window_size": 4, **settings}))


def test_memory_that_does_not_hold_a_second_attempt_is_refused_before_the_first(tmp_path):
    config = _config(tmp_path, budget=200, retry_budget=2_000, model={"name": "embedded"})
    memory = dataclasses.replace(config.memory, kv_gib=0.001)
    with pytest.raises(ConfigError, match=r"memory\.kv_gib \(0\.001\).*2000 tokens"):
        prepare(dataclasses.replace(config, memory=memory), is_local=True)


def test_sums_over_the_rows_are_what_the_workers_of_both_attempts_took(tmp_path):
    run_dir = finish_run(_config(tmp_path))
    rows = _rows(run_dir.path)
    firsts = [row["first_attempt"] for row in rows if row["first_attempt"]]
    totals = add_up(run_dir)
    assert totals.completion_tokens == sum(row["completion_tokens"] for row in rows + firsts)
    busy_s = {}
    for part in run_dir.read_telemetry():
        for sample in part.select(["worker_id", "busy_s"]).to_pylist():
            busy_s[sample["worker_id"]] = sample["busy_s"]
    assert len(busy_s) == 2
    assert totals.device_s == pytest.approx(sum(busy_s.values()))


@pytest.fixture(scope="module")
def of_the_embedded_model(tmp_path_factory):
    """Its rows with a budget that is small for it, and its run directory once it had more room."""
    overrides = {
        "input.limit": 4, "sampling.max_new_tokens": 1200, "policy.budget": 140,
        "policy.retry_budget": 200, "memory.max_seqs": 4, "run.trace_rows": 0,
        "run.dir": tmp_path_factory.mktemp("embedded") / "run",
    }  # fmt: skip
    settings = [f"{key}={value}" for key, value in overrides.items()]
    run = prepare(load_config(str(CONFIGS / "quickstart.yaml"), settings), is_local=True)
    parts = parts_of(run)
    assert driver_of(next(parts)).run(lambda: False)
    before = _rows(run.run_dir.path)
    assert all(driver_of(part).run(lambda: False) for part in parts)
    return before, run.run_dir


@pytest.mark.long
def test_more_room_makes_rows_of_the_embedded_model_right(of_the_embedded_model):
    before, run_dir = of_the_embedded_model
    after = _rows(run_dir.path)
    assert [row["correct"] for row in before] == [True, True, False, True]
    assert [row["correct"] for row in after] == [True] * 4
    assert [row["first_attempt"] is not None for row in after] == [False, False, True, False]
    for one, other in zip(before, after, strict=True):
        assert one == other or other["first_attempt"]["finish_reason"] == "length"


@pytest.mark.long
def test_the_report_says_what_second_attempts_cost_and_gained(of_the_embedded_model):
    _, run_dir = of_the_embedded_model
    rows, totals = _rows(run_dir.path), add_up(run_dir)
    again = [row for row in rows if row["first_attempt"]]
    usd = sum(row["cost_usd"] - row["first_attempt"]["cost_usd"] for row in again)
    right = sum(row["correct"] for row in again)
    lines = {line.name: line for line in endings_lines(totals)}
    assert lines["run again"].value == f"{len(again)} rows"
    assert f"{right} of them right, before 0" in lines["run again"].note
    assert lines["cost of running again"].value == money(usd)
    assert f"{money(usd / right)} per right answer gained" in lines["cost of running again"].note
    plain = (totals.dollars.total - usd) / (totals.num_correct - right)
    assert lines["cost per right answer without"].value == money(plain)


def test_a_plan_counts_second_attempts_and_the_memory_of_first_ones(tmp_path, capsys, monkeypatch):
    config = _config(tmp_path, num_rows=80)
    monkeypatch.setattr(forecasting, "drive", lambda run, *others: _finish(run))
    assert forecasting.forecast(str(tmp_path / "config.yaml"), [], num_rows=80) == 0
    said = " ".join(capsys.readouterr().out.split())
    rows = _rows(finish_run(config).path)
    again = [row for row in rows if row["first_attempt"]]
    assert (
        f"run again │ {len(again) / len(rows):.1%} of the rows, with a budget of {SECOND}" in said
    )
    tokens = add_up(RunDir(config.run.dir)).completion_tokens
    assert f"generated tokens │ {tokens:,}" in said
    assert f"rows at once on a worker │ 4 in {4 * FIRST:.1f} KiB" in said


def _finish(run):
    assert all(driver_of(part).run(lambda: False) for part in parts_of(run))
