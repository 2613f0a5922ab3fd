"""Tuning as a job: no row beyond need, none twice, whatever breaks off;
refusals come before the first row."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from fake_run import write_config, write_problems

from dynts_batch.config_file import load_config
from dynts_batch.data.run_dir import RunDir
from dynts_batch.errors import ConfigError, InputError, RunDirError
from dynts_batch.exit_status import EXIT_LIMIT
from dynts_batch.report.tuning.ladder import FIRST_LOOK, Terms
from dynts_batch.runner.reason import reason
from dynts_batch.runner.tuning import arm
from dynts_batch.runner.tuning.settings import TuneSettings
from dynts_batch.runner.tuning.tune import tune

REPOSITORY = Path(__file__).parents[3]
TERMS = Terms(most_loss=0.2, delta=0.05)


def settings(folder: Path, num_rows: int = 50, **groups) -> TuneSettings:
    config = write_config(folder, write_problems(folder / "problems.jsonl", num_rows), **groups)
    return TuneSettings(
        str(config), ("memory.max_prompt_tokens=40",), None, (), (16, 12), (), TERMS, 0, None
    )


def num_rows(path: Path) -> int:
    return len(RunDir(str(path)).finished_shards())


@pytest.fixture(scope="module")
def tuned(cluster: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tune")
    assert tune(settings(folder, input={"limit": 45})) == 0
    return folder


def test_a_tuning_beside_a_uri_with_options_is_not_the_run_itself(tmp_path: Path) -> None:
    wanted = settings(tmp_path, run={"dir": "s3://b/r1/?region=us-east-1"})
    assert wanted.folder == "s3://b/r1-tune?region=us-east-1"
    assert wanted.config("full", None).run.dir == "s3://b/r1-tune/cells/full-s0?region=us-east-1"


def test_candidates_are_run_no_further_than_their_certificates_need(tuned: Path) -> None:
    out = tuned / "run-tune"
    found = json.loads((out / "certificate.json").read_text())
    assert found["choice"] == {"policy": "window", "budget": 12}
    assert [(rung["budget"], rung["verdict"]) for rung in found["ladder"]] == [
        (16, "certified"), (12, "certified"),
    ]  # fmt: skip
    assert "less than 20 points of accuracy" in found["claim"]
    for name in ("full-s0", "window-b16-s0", "window-b12-s0"):
        assert num_rows(out / "cells" / name) == FIRST_LOOK
    assert found["spent"]["rows"] == 3 * FIRST_LOOK
    assert found["spent"]["share_of_all_candidates"] == pytest.approx(FIRST_LOOK / 45)
    assert (out / "tune.svg").read_text().startswith("<?xml")


def test_the_same_command_finds_it_all_there(
    tuned: Path, cluster: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tuned / "run-tune"
    before = (out / "certificate.json").read_text()
    assert tune(settings(tuned, input={"limit": 45})) == 0
    assert (out / "certificate.json").read_text() == before
    said = capsys.readouterr()
    assert "to do" not in said.err
    assert "window at 12" in said.out


def test_the_configuration_that_is_written_goes_on_with_the_rows_that_are_there(
    tuned: Path, cluster: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tuned / "run-tune" / "tuned.yaml"
    config = load_config(str(path))
    assert (config.policy.name, config.policy.budget) == ("window", 12)
    assert reason(str(path), []) == 0
    assert f"{45 - FIRST_LOOK} of 45 shards to do" in capsys.readouterr().err
    assert RunDir(str(config.run.dir)).read_manifest()["num_rows"] == 45


def test_other_terms_are_refused_after_the_first_answer(tuned: Path) -> None:
    for other, line in (
        (Terms(0.3, 0.05), "most_loss: 0.2 there, 0.3 now"),
        (Terms(0.2, 0.1), "delta: 0.05 there, 0.1 now"),
    ):
        with pytest.raises(RunDirError, match=line):
            tune(replace(settings(tuned, input={"limit": 45}), terms=other))
    with pytest.raises(RunDirError, match="budgets"):
        tune(replace(settings(tuned, input={"limit": 45}), budgets=(16, 10)))


def test_a_candidate_that_fails_ends_its_chain_and_the_full_cache_stays(
    cluster: str, tmp_path: Path
) -> None:
    """No prompt of 6 tokens fits a budget of 6."""
    wanted = replace(settings(tmp_path), budgets=(6, 5))
    wanted = replace(wanted, overrides=(*wanted.overrides, "policy.window_size=2"))
    assert tune(wanted) == 0
    found = json.loads((tmp_path / "run-tune" / "certificate.json").read_text())
    assert found["choice"] is None
    assert [rung["verdict"] for rung in found["ladder"]] == ["loses more", "not tried"]
    assert load_config(str(tmp_path / "run-tune" / "tuned.yaml")).policy.name == "full"
    assert num_rows(tmp_path / "run-tune" / "cells" / "window-b5-s0") == 0


@pytest.mark.long
def test_without_references_and_budgets_agreement_and_shares_of_the_full_cache_serve(
    cluster: str, tmp_path: Path
) -> None:
    wanted = settings(tmp_path, 70, input={"reference_column": None})
    assert tune(replace(wanted, budgets=None, shares=(90.0,))) == 0
    found = json.loads((tmp_path / "run-tune" / "certificate.json").read_text())
    assert "less than 20% of the full cache's answers" in found["claim"]
    (rung,) = found["ladder"]
    assert rung["verdict"] == "certified"
    full = RunDir(str(tmp_path / "run-tune" / "cells" / "full-s0"))
    pilot = wanted.order(70)[:FIRST_LOOK]
    peaks = [full.read_shard(question)["peak_cache_len"][0].as_py() for question in pilot]
    assert rung["budget"] == round(0.9 * sum(peaks) / len(peaks))
    assert len(full.finished_shards()) == 2 * FIRST_LOOK, "the pilot's certify nothing"


def test_a_shard_is_a_question_with_all_its_samples(cluster: str, tmp_path: Path) -> None:
    wanted = settings(tmp_path, 40, sampling={"num_samples": 2, "max_new_tokens": 20})
    assert tune(replace(wanted, budgets=(16,))) == 0
    found = json.loads((tmp_path / "run-tune" / "certificate.json").read_text())
    assert found["spent"]["rows"] == 2 * 2 * FIRST_LOOK
    assert found["ladder"][0]["questions"] == FIRST_LOOK


def test_what_is_wrong_is_said_before_anything_is_run(tmp_path: Path) -> None:
    good = settings(tmp_path, 30)
    for wrong, kind, message in (
        ({"terms": Terms(0.02, 0.05)}, InputError,
         "at least 298 questions even if no answer differs, got 30: they can certify a loss"
         " below 17.5 points at best"),
        ({"terms": Terms(0.0, 0.05)}, ConfigError, "--points must be above 0"),
        ({"terms": Terms(0.2, 1.0)}, ConfigError, "--delta must be above 0 and below 1"),
        ({"policies": ("window", "full")}, ConfigError, "--policies must name"),
        ({"policies": ("windw",)}, ConfigError, "Did you mean window"),
        ({"budgets": None, "shares": (120.0,)}, ConfigError, "--shares must be above 0"),
        ({"max_questions": 0}, ConfigError, "--max-questions must be at least 1"),
    ):  # fmt: skip
        with pytest.raises(kind, match=message):
            tune(replace(good, **wrong))
    assert not (tmp_path / "run-tune").exists()


def test_questions_that_nobody_can_judge_are_not_paid_for_to_the_end(
    cluster: str, tmp_path: Path
) -> None:
    wanted = settings(tmp_path, 60)
    lines = [json.loads(line) for line in (tmp_path / "problems.jsonl").read_text().splitlines()]
    text = "".join(f"{json.dumps({**line, 'answer': None})}\n" for line in lines)
    (tmp_path / "problems.jsonl").write_text(text)
    with pytest.raises(InputError, match="must hold questions that can be judged, got 32"):
        tune(wanted)


def test_one_that_a_limit_ends_before_the_first_look_says_so(
    cluster: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(arm, "drive", lambda run, address, console: EXIT_LIMIT)
    assert tune(settings(tmp_path)) == EXIT_LIMIT
    assert "unfinished" in capsys.readouterr().out


@pytest.mark.long
def test_a_tuning_that_is_killed_goes_on_and_answers_nothing_twice(
    cluster: str, tuned: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    wanted = settings(tmp_path, 50, model={"name": f"fake:step_s=0.01,log={log}"})
    arguments = ["--points", "20", "--budgets", "16,12", "memory.max_prompt_tokens=40"]
    command = [sys.executable, str(REPOSITORY / "jobs" / "tune.py"), wanted.config_path, *arguments]
    cells = tmp_path / "run-tune" / "cells"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "RAY_ADDRESS": cluster}
    job = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    while len(list(cells.glob("window-b16-s0/rows/*"))) < 3:
        assert job.poll() is None, job.communicate()[0]
        time.sleep(0.02)
    job.send_signal(signal.SIGKILL)
    job.communicate()
    stored = RunDir(str(cells / "window-b16-s0")).finished_shards()
    assert tune(wanted) == 0
    found, whole = (
        json.loads((folder / "run-tune" / "certificate.json").read_text())
        for folder in (tmp_path, tuned)
    )
    keys = ("verdict", "questions", "questions_until_verdict", "mean_loss", "wealth")
    for mine, its in zip(found["ladder"], whole["ladder"], strict=True):
        assert [mine[key] for key in keys] == [its[key] for key in keys]
    admitted = Counter(line.split()[-1] for line in log.read_text().splitlines())
    assert len(stored) >= 3
    assert all(admitted[f"p{question}"] == 3 for question in stored), "one of each candidate"
