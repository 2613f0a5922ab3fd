"""What comes of a run directory whose files were cut, edited or written by something else.

No job ends in a traceback: a file that only tells costs a warning,
one that counts is refused in a line that names it.
"""

import json
import logging
import re
import runpy
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_run import make_config
from local_run import finish_run

from dynts_batch.data.run_dir import RunDir
from dynts_batch.runner import reason as reason_module
from dynts_batch.runner.driver.limits import spent_usd

DRIVE = reason_module.drive
JOBS = Path(__file__).parents[2] / "jobs"
#: The shard that is damaged; another one holds error rows.
SHARD = "rows/shard-00002.parquet"
TELEMETRY = "workers/*.parquet"


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A finished run of 23 rows in 5 shards with a price,
    two error rows and its configuration beside it."""
    folder = tmp_path_factory.mktemp("finished")
    run = {"dir": str(folder / "run"), "shard_rows": 5, "trace_rows": 3}
    cost = {"usd_per_gpu_hour": 1.0}
    model = {"name": "fake:step_s=0.5,simulated=true"}
    finish_run(make_config(folder, 23, {4: "", 9: " "}, run=run, cost=cost, model=model))
    return folder


@pytest.fixture
def run(finished, tmp_path, monkeypatch) -> Path:
    """A copy of it to be damaged."""
    monkeypatch.setattr(reason_module, "drive", lambda run, *args: finish_run(run.config) and None)
    return Path(shutil.copytree(finished / "run", tmp_path / "run"))


@pytest.fixture
def job(finished, run, monkeypatch, capsys) -> Callable[..., tuple[int, str, str]]:
    """Runs one on `run` as a user does: its exit status,
    and what it prints on stdout and stderr."""

    def run_job(name: str, *options: str) -> tuple[int, str, str]:
        path = str(run)
        positional = {
            "reason": [str(finished / "config.yaml"), f"run.dir={path}"],
            "export": [path, f"{path}-{len(list(run.parent.iterdir()))}", "--partial"],
        }
        arguments = [*positional.get(name, [path]), *options]
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments])
        for logger in (logging.root, logging.getLogger("dynts_batch")):  # each job sets up its own
            monkeypatch.setattr(logger, "handlers", [])
            monkeypatch.setattr(logger, "propagate", True)
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(JOBS / f"{name}.py"), run_name="__main__")
        return (ended.value.code, *capsys.readouterr())

    return run_job


def _file(run: Path, pattern: str) -> Path:
    (path,) = run.glob(pattern)
    return path


# ---- every file, every way ----------------------------------------------------------------------


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 7 // 10])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _garble(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4 : len(content) // 2] = b"\xff" * (len(content) // 2 - 4)
    path.write_bytes(content)


def _replace(path: Path) -> None:
    """By what a file of this kind may hold, and of this name may not."""
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"x": [1]}), path)
    else:
        path.write_text("{}" if path.suffix == ".json" else "- 1\n")


FILES = ("fingerprint.json", "manifest.json", "config.yaml", "errors/shard-00000.jsonl", SHARD)


@pytest.mark.parametrize("name", ["status", "report", "export", "grade", "reason"])
@pytest.mark.parametrize("damage", [_cut, _empty, _garble, _replace])
@pytest.mark.parametrize("file", [*FILES, TELEMETRY])
def test_no_job_ends_in_a_traceback(file, damage, name, run, job):
    path = _file(run, file)
    damage(path)
    code, out, err = job(name, *(["--format=openai"] if name == "export" else []))
    assert code in (0, 2, 3)
    if code == 2:
        line = err.splitlines()[-1]
        named = rf"^error: .*({re.escape(path.name)}|holds a run with other settings:$)"
        assert re.search(named, err, re.MULTILINE), err
        assert "Traceback" not in out + err
        assert len(line) < 600
    if file in (TELEMETRY, "errors/shard-00000.jsonl"):
        assert code != 2, err


# ---- what only tells ----------------------------------------------------------------------------


def _without(column: str) -> Callable[[Path], None]:
    return lambda path: pq.write_table(pq.read_table(path).drop_columns([column]), path)


def _as_text(column: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        table = pq.read_table(path)
        text = pa.array(["much"] * table.num_rows)
        at = table.schema.get_field_index(column)
        pq.write_table(table.set_column(at, column, text), path)

    return change


def _as_null(column: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        table = pq.read_table(path)
        at, kind = table.schema.get_field_index(column), table.schema.field(column).type
        nulls = pa.nulls(table.num_rows, kind)
        pq.write_table(table.set_column(at, pa.field(column, kind), nulls), path)

    return change


@pytest.mark.parametrize(
    "damage", [_cut, _replace, _without("time_s"), _as_text("busy_s"), _as_null("worker_id")]
)
def test_damaged_telemetry_costs_a_warning_and_no_figure_of_the_rows(
    damage, run, job, tmp_path, monkeypatch
):
    """It was a traceback in place of the report."""
    monkeypatch.setenv("COLUMNS", "200")  # where a note is wrapped follows from figures that change
    _, whole, _ = job("report")
    telemetry = _file(run, TELEMETRY)
    damage(telemetry)
    code, out, err = job("report", "--html", str(tmp_path / "page.html"))
    assert code == 0
    (line,) = err.splitlines()
    assert line.startswith(f"left out of the figures: {telemetry} is damaged: ")
    assert line.endswith("Delete it to go on without it")
    rights = [line.split() for line in whole.splitlines() if "right" in line]
    assert rights == [line.split() for line in out.splitlines() if "right" in line]
    assert "no telemetry" in out


@pytest.mark.parametrize("damage", [_cut, _replace, _without("time_s"), _as_text("cost_usd")])
def test_a_cost_cap_does_not_forget_what_it_cannot_read(damage, run, job, monkeypatch):
    monkeypatch.setattr(reason_module, "drive", DRIVE)
    assert spent_usd(RunDir(str(run))) > 0
    telemetry = _file(run, TELEMETRY)
    (run / SHARD).unlink()  # so that something is to do
    damage(telemetry)
    code, _, err = job("reason", "run.max_cost_usd=5")
    assert code == 2
    assert err.splitlines()[-1].startswith(f"error: {telemetry} is damaged: ")


def test_samples_without_a_row_are_no_telemetry(run, job):
    telemetry = _file(run, TELEMETRY)
    pq.write_table(pq.read_table(telemetry).slice(0, 0), telemetry)
    assert spent_usd(RunDir(str(run))) == 0
    code, out, _ = job("report")
    assert (code, "n/a" in out) == (0, True)


@pytest.mark.parametrize("damage", [_cut, _empty, _garble, _replace])
def test_a_damaged_list_of_errors_changes_no_count(damage, run, job):
    _, whole, _ = job("status")
    assert "failed      2" in whole
    damage(run / "errors" / "shard-00000.jsonl")
    assert job("status") == (0, whole, "")


# ---- what counts --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["report", "export", "grade", "reason"])
@pytest.mark.parametrize(
    "damage",
    [
        _without("completion_tokens"),
        _as_text("prompt_tokens"),
        _as_text("correct"),
        _as_null("device_s"),
    ],
)
def test_rows_that_lack_what_every_row_has_are_refused_by_name(damage, name, run, job):
    damage(run / SHARD)
    options = {"reason": ["run.retry_failed=false"], "export": ["--format=jsonl"]}
    code, _, err = job(name, *options.get(name, []))
    assert code == 2
    line = err.splitlines()[-1]
    assert re.match(rf"error: {run}/{SHARD} is damaged: .* Delete it to compute it again", line)


def test_rows_that_are_older_than_a_column_have_nulls_there(run, job):
    """Reports of two shards with other columns ended in a traceback."""
    for column in ("token_trace", "extracted_answer", "completion_token_ids"):
        _without(column)(run / SHARD)
    assert job("report")[0] == 0
    assert job("export", "--format=parquet")[0] == 0
    rows = [row for batch in RunDir(str(run)).read_rows() for row in batch.to_pylist()]
    assert [row["extracted_answer"] is None for row in rows[10:15]] == [True] * 5
    assert job("grade")[0] == 0  # judges, and writes the column
    assert "extracted_answer" in pq.read_schema(run / SHARD).names


def test_rows_that_went_through_another_program_are_the_same_rows(run):
    """Data frames write whole numbers as floats, and columns of nothing without a type."""
    before = list(RunDir(str(run)).read_rows())
    table = pq.read_table(run / SHARD)
    floats, nothing = table["completion_tokens"].cast(pa.float64()), pa.nulls(table.num_rows)
    for name, column in (("completion_tokens", floats), ("device_uuid", nothing)):
        table = table.set_column(table.schema.get_field_index(name), name, column)
    pq.write_table(table, run / SHARD)
    assert list(RunDir(str(run)).read_rows()) == before


def test_a_checkpoint_without_the_columns_of_the_input_is_refused_and_kills_no_worker(run, job):
    """Its rows were taken for those that kill, one after another, and became error rows."""
    (run / "manifest.json").unlink()
    (run / "checkpoints").mkdir()
    checkpoint = run / "checkpoints" / Path(SHARD).name
    (run / SHARD).rename(checkpoint)
    table = pq.read_table(checkpoint).slice(0, 3)
    at = table.schema.get_field_index("question")
    pq.write_table(table.set_column(at, "question", pa.array([[1]] * 3)), checkpoint)
    code, _, err = job("reason")
    assert code == 2
    assert err.splitlines()[-1].startswith(
        "error: what is stored of shard 2 must have the columns of the input: "
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"num_units": "23"}, "num_units must be a count"),
        ({"shard_rows": 0}, "shard_rows must be a count"),
        ({"input": None}, "input must hold keys"),
    ],
)
def test_a_fingerprint_that_was_edited_is_refused(changes, reason, run, job):
    fingerprint = json.loads((run / "fingerprint.json").read_text())
    (run / "fingerprint.json").write_text(json.dumps(fingerprint | changes))
    code, _, err = job("grade")
    assert (code, err) == (2, f"error: {run}/fingerprint.json is damaged: {reason}\n")
