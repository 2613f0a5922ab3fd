"""The frontier as a job: every cell is a run, the same command resumes,
and wrong cells are refused before the first."""

import io
import math
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from fake_run import write_config, write_problems
from report_runs import ERROR_ROW, write_run
from rich.console import Console
from s3_server import BUCKET, s3_server

from dynts_batch.cli.runs.frontier import main
from dynts_batch.config_file import load_config
from dynts_batch.data.files.storage import Storage
from dynts_batch.data.run_dir import RunDir
from dynts_batch.errors import ConfigError
from dynts_batch.runner.frontier import (
    Cell,
    _configs,
    budgets_of_shares,
    frontier,
    frontier_of_shares,
    plan_cells,
    write_frontier,
)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write_config(tmp_path, write_problems(tmp_path / "problems.jsonl", 7))


def test_a_cell_says_what_it_changes_and_has_a_folder_of_its_own() -> None:
    cell = Cell("h2o+accumulate=false", 240, 3)
    assert cell.name == "h2o+accumulate=false-b240-s3"
    assert cell.overrides("/f") == [
        "policy.name=h2o", "policy.budget=240", "policy.retry_budget=null",
        "policy.accumulate=false",
        "sampling.seed=3", "run.dir=/f/cells/h2o+accumulate=false-b240-s3",
    ]  # fmt: skip
    cells = plan_cells(["dynts", "my_module:Mine", "full"], [16, 8], [0, 1])
    assert len(cells) == 2 * (1 + 2 * 2)
    assert cells == plan_cells(["dynts", "my_module:Mine", "dynts", "full"], [16, 8, 8], [0, 1, 0])
    assert len({cell.name for cell in cells}) == len(cells)
    assert [cell.name for cell in cells[:3]] == ["full-s0", "dynts-b16-s0", "my_module.Mine-b16-s0"]


def test_a_cell_below_a_uri_keeps_its_options(config: Path) -> None:
    overrides = Cell("full", None, 0).overrides("s3://b/f/?region=us-east-1&scheme=http")
    found = load_config(str(config), overrides).run.dir
    assert found == "s3://b/f/cells/full-s0?region=us-east-1&scheme=http"


def test_a_frontier_is_run_in_parts_and_resumed(
    cluster: str, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, cells = tmp_path / "frontier", plan_cells(["window", "random"], [16, 12], [0, 1])
    assert frontier(str(config), str(out), cells[:5], 2, []) == 0
    assert len(pq.read_table(out / "frontier.parquet")) == 2 * 7
    assert frontier(str(config), str(out), cells[:5], None, []) == 0
    assert "nothing to do" in capsys.readouterr().err
    rows = pq.read_table(out / "frontier.parquet")
    assert len(rows) == 5 * 7
    found = {(row["policy"], row["budget"], row["seed"]) for row in rows.to_pylist()}
    assert found == {(cell.variant, cell.budget, cell.seed) for cell in cells[:5]}
    assert (out / "frontier.svg").read_text().startswith("<?xml")
    assert {path.name for path in out.iterdir()} == {"cells", "frontier.parquet", "frontier.svg"}


def test_shares_are_of_the_mean_peak_of_the_full_cache_which_runs_first(
    cluster: str, config: Path, tmp_path: Path
) -> None:
    out = tmp_path / "frontier"
    assert frontier_of_shares(str(config), str(out), ["window"], [50, 80], [0], 1, []) == 0
    assert [path.name for path in (out / "cells").iterdir()] == ["full-s0"]  # as many as --cells
    assert frontier_of_shares(str(config), str(out), ["window"], [50, 80], [0], None, []) == 0
    rows = pq.read_table(out / "frontier.parquet").to_pylist()
    peaks = [row["peak_cache_len"] for row in rows if row["policy"] == "full"]
    expected = [round(share * sum(peaks) / len(peaks)) for share in (0.5, 0.8)]
    assert {row["budget"] for row in rows if row["policy"] == "window"} == set(expected)
    assert budgets_of_shares([50, 80], RunDir(str(out / "cells/full-s0"))) == expected


def test_wrong_cells_are_refused_before_any_is_run(config: Path, tmp_path: Path) -> None:
    out = tmp_path / "frontier"
    for variants, seeds, override, message in (
        (["window", "windw"], [0], "memory.max_seqs=4", "Did you mean window"),
        (["window+mood=1"], [0], "memory.max_seqs=4", "unknown config key policy.mood"),
        (["window"], [0, 1], "sampling.temperature=0", "several seeds needs sampling.temperature"),
        (["window"], [0], "input.reference_column=null", "needs input.reference_column"),
        (["window"], [0], "grading.kind=none", "needs grading.kind"),
    ):
        with pytest.raises(ConfigError, match=message):
            frontier(str(config), str(out), plan_cells(variants, [16], seeds), None, [override])
    for share in (0, -5, math.nan):
        with pytest.raises(ConfigError, match="--shares must be above 0"):
            frontier_of_shares(str(config), str(out), ["window"], [50, share], [0], None, [])
    assert not out.exists()


def test_a_frontier_at_a_uri_is_written_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was written into a local folder named `s3:`."""
    monkeypatch.chdir(tmp_path)
    cells, configs = plan_cells([], [], [0]), [RunDir(write_run(tmp_path / "full", [{}])).config()]
    with s3_server():
        out, shown = f"s3://{BUCKET}/f", io.StringIO()
        write_frontier(out, cells, configs, Console(file=shown))
        with Storage(out).open("frontier.parquet") as file:
            assert pq.read_table(file)["correct"].to_pylist() == [True]
        assert (Storage(out).read("frontier.svg") or b"").startswith(b"<?xml")
    assert shown.getvalue().endswith(f"{out}/frontier.parquet, {out}/frontier.svg\n")
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


def test_every_cell_is_at_the_uri_too(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def main_of_the_job(config_path, out, cells, limit, overrides) -> int:
        seen.extend(str(found.run.dir) for found in _configs(config_path, out, cells, overrides))
        return 0

    monkeypatch.setattr("dynts_batch.cli.runs.frontier.frontier", main_of_the_job)
    assert main([str(config), "s3://b/f", "--policies", "window", "--budgets", "16"]) == 0
    assert seen == ["s3://b/f/cells/full-s0", "s3://b/f/cells/window-b16-s0"]


def test_a_question_without_a_reference_has_no_wrong_answer(tmp_path: Path) -> None:
    right, wrong, unknown = {}, {"correct": False}, {"reference": None, "correct": None}
    blank = {"reference": " ", "correct": None}  # as an empty cell of a CSV file
    found = [right, wrong, unknown, ERROR_ROW, blank, ERROR_ROW | blank]
    rows = [row | {"request_id": f"q{n}"} for n, row in enumerate(found)]
    path = write_run(tmp_path / "full", rows)
    cells, configs = plan_cells([], [], [0]), [RunDir(path).config()]
    write_frontier(str(tmp_path / "out"), cells, configs, Console(file=io.StringIO()))
    found = pq.read_table(tmp_path / "out" / "frontier.parquet").to_pylist()
    assert [(row["request_id"], row["correct"]) for row in found] == [
        ("q0", True),
        ("q1", False),
        ("q3", False),
    ]
