"""Laws of the subcommands: they work from any folder, and their exit status tells what happened."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fake_run import make_config, write_config, write_problems
from local_run import finish_run

from dynts_batch import __version__
from dynts_batch.cli.commands import COMMANDS
from dynts_batch.cli.main import main
from dynts_batch.config_file import load_config
from dynts_batch.shipped import shipped_configs

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch):
    monkeypatch.chdir("/")


def _in_new_process(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_prints_its_usage(name, capsys):
    with pytest.raises(SystemExit) as end:
        main([name, "--help"])
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: dynts-batch {name} ")


def test_the_overview_names_every_command_and_imports_nothing_heavy():
    printed = _in_new_process("""
import sys
from dynts_batch.cli.main import main
try:
    main(["--help"])
except SystemExit as status:
    assert status.code == 0
for module in ("torch", "ray", "transformers", "pyarrow", "rich"):
    assert module not in sys.modules, module
""")
    listed = [line.split()[0] for line in printed.splitlines() if line.startswith("  ")]
    assert set(COMMANDS) <= set(listed)


@pytest.mark.parametrize("module", ["ray", "torch"])
def test_status_needs_neither_ray_nor_torch(module, tmp_path):
    _in_new_process(f"""
import sys
from dynts_batch.cli.main import main
assert main(["status", {str(tmp_path)!r}]) == 2
assert {module!r} not in sys.modules
""")


def test_the_version_is_the_packages(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"dynts-batch {__version__}\n"


def test_an_unknown_command_is_one_line_with_the_choices(capsys):
    assert main(["rnu", "quickstart"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: unknown command rnu. Did you mean run? Choices: config, plan, ")
    assert said.count("\n") == 1


def test_a_shipped_configuration_is_listed_printed_and_run_by_its_name(tmp_path, capsys):
    assert main(["config"]) == 0
    names = capsys.readouterr().out.split()
    assert names == list(shipped_configs())
    assert {"quickstart", "hub-model", "paper/r1-qwen-7b-aime24"} <= set(names)
    for name in names:
        assert main(["config", name]) == 0
        copy = tmp_path / "copy.yaml"
        copy.write_text(capsys.readouterr().out)
        assert load_config(str(copy)) == load_config(name)


def test_a_file_goes_before_a_shipped_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_config("quickstart").run.dir == "runs/quickstart"
    shutil.copy(shipped_configs()["cheapest"], "quickstart")
    assert load_config("quickstart").run.dir == "runs/cheapest/dynts-200"


@pytest.mark.parametrize("arguments", [("config", "quickstat"), ("run", "quickstat")])
def test_a_name_that_is_not_shipped_is_answered_with_those_that_are(arguments, capsys):
    assert main(arguments) == 2
    assert "Did you mean quickstart? Choices: cheapest, hub-model, " in capsys.readouterr().err


@pytest.mark.parametrize("command", ["run", "plan"])
def test_no_setting_is_said_to_be_required(command, capsys):
    with pytest.raises(SystemExit):
        main([command])
    said = capsys.readouterr().err
    assert "are required: CONFIG" in said
    assert "key=value" not in said.splitlines()[-1]


def test_run_ends_with_2_and_one_line_for_a_users_mistake(tmp_path, capsys):
    config = write_config(tmp_path, write_problems(tmp_path / "problems.jsonl", 1))
    assert main(["run", str(config), "policy.widow_size=3"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: unknown config key policy.widow_size")
    assert said.err.count("\n") == 1


def test_options_and_overrides_come_in_any_order(tmp_path, capsys):
    options = ("--policies", "window", "--budgets", "64")
    for arguments in (("policy.widow_size=3", *options), (*options, "policy.widow_size=3")):
        assert main(["frontier", "quickstart", str(tmp_path), *arguments]) == 2
        said = capsys.readouterr().err
        assert said.startswith("error: unknown config key policy.widow_size")


def test_run_without_a_configuration_explains_itself(capsys):
    with pytest.raises(SystemExit) as end:
        main(["run"])
    assert end.value.code == 2
    assert "usage: dynts-batch run" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["status", "report", "grade"])
def test_what_is_no_run_directory_ends_with_2(command, tmp_path, capsys):
    assert main([command, str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == f"error: {tmp_path} is not a run directory: it has no fingerprint.json\n"


def test_status_watches_a_run_until_it_is_finished(tmp_path):
    finish_run(make_config(tmp_path))
    manifest = tmp_path / "run" / "manifest.json"
    seal = manifest.read_text()
    manifest.unlink()
    watcher = subprocess.Popen(
        [sys.executable, "-m", "dynts_batch", "status", str(tmp_path / "run"), "--watch",
         "--every=.1"],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    with pytest.raises(subprocess.TimeoutExpired):
        watcher.wait(timeout=1)
    manifest.write_text(seal)
    out, _ = watcher.communicate(timeout=60)
    assert watcher.returncode == 0
    assert "rows done   23 of 23 (100.0%)" in out
    assert "state       finished" in out


def test_grade_says_what_changed_and_ends_with_2_for_a_users_mistake(tmp_path, capsys):
    run_dir = finish_run(make_config(tmp_path))
    assert main(["grade", run_dir.path, "grading.kind=none"]) == 0
    assert "0 of 0 judged rows are right (before: " in capsys.readouterr().out
    assert main(["grade", run_dir.path, "grading.kind=llm"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: grading.kind must be one of")


def test_report_writes_the_page_and_ends_with_2_for_what_cannot_be(tmp_path, capsys):
    run_dir = finish_run(make_config(tmp_path))
    html = tmp_path / "new" / "report.html"
    assert main(["report", run_dir.path, "--html", str(html)]) == 0
    assert "right (pass@1)" in capsys.readouterr().out
    assert html.read_text().lstrip().startswith("<!doctype html>")
    assert main(["report", run_dir.path, "--picture", str(tmp_path / "cost.svg")]) == 2
    assert capsys.readouterr().err.startswith("error: a picture needs a run with prices")


@pytest.mark.parametrize("door", sorted((REPOSITORY / "jobs").glob("*.py")), ids=lambda p: p.stem)
def test_every_job_is_the_door_of_a_command(door):
    """It passes its arguments on; which one it is, its usage tells."""
    name = {"reason": "run"}.get(door.stem, door.stem.replace("_", "-"))
    printed = _in_new_process(f"""
import runpy, sys
from dynts_batch.cli import main
main.main = lambda arguments: print(*arguments) or 3
sys.argv = [{str(door)!r}, "a", "b=c"]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as status:
    assert status.code == 3
""")
    assert printed == f"{name} a b=c\n"


def test_a_report_is_opened_in_the_browser_and_says_where_it_is(tmp_path, monkeypatch, capfd):
    """BROWSER is how Python is told which browser to start."""
    run = finish_run(make_config(tmp_path, 3)).path
    monkeypatch.setenv("BROWSER", "echo opened %s")
    page = tmp_path / "page.html"
    assert main(["report", run, "--html", str(page), "--open"]) == 0
    printed = capfd.readouterr().out
    assert f"wrote {page} (" in printed
    assert f"opened {page.as_uri()}" in printed


def test_the_page_of_one_run_lies_beside_its_rows_and_that_of_several_here(
    tmp_path, monkeypatch, capfd
):
    """Pages of all runs were the same file in the current folder."""
    run = finish_run(make_config(tmp_path, 3)).path
    monkeypatch.setenv("BROWSER", "echo opened %s")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for run_dirs, page in [([run], Path(run)), ([run, run], tmp_path / "here")]:
        assert main(["report", *run_dirs, "--open"]) == 0
        assert f"opened {(page / 'report.html').as_uri()}" in capfd.readouterr().out
