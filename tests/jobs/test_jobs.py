"""Laws of the entry points: they run from any folder, and their exit status tells what happened."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fake_run import make_config, write_config, write_problems
from local_run import finish_run

REPOSITORY = Path(__file__).parents[2]


def _job(name: str, *args: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(REPOSITORY / "jobs" / name), *map(str, args)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )


def test_reason_ends_with_2_and_one_line_for_a_users_mistake(tmp_path):
    config = write_config(tmp_path, write_problems(tmp_path / "problems.jsonl", 1))
    done = _job("reason.py", config, "policy.widow_size=3", cwd=Path("/"))
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: unknown config key policy.widow_size")
    assert done.stderr.count("\n") == 1


def test_options_and_overrides_come_in_any_order(tmp_path):
    options = ("--policies", "window", "--budgets", "64")
    for arguments in (("policy.widow_size=3", *options), (*options, "policy.widow_size=3")):
        done = _job("frontier.py", "configs/quickstart.yaml", tmp_path, *arguments, cwd=REPOSITORY)
        assert done.returncode == 2
        assert done.stderr.startswith("error: unknown config key policy.widow_size")


def test_reason_without_a_configuration_explains_itself(tmp_path):
    done = _job("reason.py", cwd=tmp_path)
    assert done.returncode == 2
    assert "usage:" in done.stderr


def test_status_of_what_is_no_run_directory_ends_with_2(tmp_path):
    done = _job("status.py", tmp_path, cwd=Path("/"))
    assert done.returncode == 2
    assert done.stderr == (
        f"error: {tmp_path} is not a run directory: it has no fingerprint.json\n"
    )


def test_status_watches_a_run_until_it_is_finished(tmp_path):
    finish_run(make_config(tmp_path))
    manifest = tmp_path / "run" / "manifest.json"
    seal = manifest.read_text()
    manifest.unlink()
    watcher = subprocess.Popen(
        [sys.executable, "jobs/status.py", str(tmp_path / "run"), "--watch", "--every=0.1"],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        text=True,
    )
    with pytest.raises(subprocess.TimeoutExpired):
        watcher.wait(timeout=1)
    manifest.write_text(seal)
    out, _ = watcher.communicate(timeout=60)
    assert watcher.returncode == 0
    assert "rows done   23 of 23 (100.0%)" in out
    assert "state       finished" in out


@pytest.mark.parametrize("module", ["ray", "torch"])
def test_status_needs_neither_ray_nor_torch(module, tmp_path):
    code = f"""
import runpy, sys
sys.argv = ["status.py", {str(tmp_path)!r}]
try:
    runpy.run_path({str(REPOSITORY / "jobs" / "status.py")!r}, run_name="__main__")
except SystemExit as status:
    assert status.code == 2
assert {module!r} not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_grade_says_what_changed_and_ends_with_2_for_a_users_mistake(tmp_path):
    run_dir = finish_run(make_config(tmp_path))
    done = _job("grade.py", run_dir.path, "grading.kind=none", cwd=Path("/"))
    assert done.returncode == 0, done.stderr
    assert "0 of 0 judged rows are right (before: " in done.stdout
    done = _job("grade.py", run_dir.path, "grading.kind=llm", cwd=Path("/"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: grading.kind must be one of")


def test_report_writes_the_page_and_ends_with_2_for_what_cannot_be(tmp_path):
    run_dir = finish_run(make_config(tmp_path))
    html = tmp_path / "new" / "report.html"
    done = _job("report.py", run_dir.path, "--html", html, cwd=Path("/"))
    assert done.returncode == 0, done.stderr
    assert "right (pass@1)" in done.stdout
    assert html.read_text().lstrip().startswith("<!doctype html>")
    done = _job("report.py", run_dir.path, "--picture", tmp_path / "cost.svg", cwd=Path("/"))
    assert done.returncode == 2
    assert done.stderr.startswith("error: a picture needs a run with prices")
    done = _job("report.py", tmp_path, cwd=Path("/"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: {tmp_path} is not a run directory: it has no fingerprint.json\n"
