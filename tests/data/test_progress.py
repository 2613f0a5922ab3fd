"""Laws of progress: what it says follows from the files alone."""

import os
from pathlib import Path

import pytest
from output_rows import UNITS, output_table

from dynts_batch.config import Config, RunConfig
from dynts_batch.data.progress import read_progress
from dynts_batch.data.run_dir import RunDir
from dynts_batch.errors import RunDirError


@pytest.fixture
def run_dir(tmp_path) -> RunDir:
    run_dir = RunDir(str(tmp_path))
    run_dir.create_or_resume(Config(run=RunConfig(dir="x")), {"num_units": 10, "shard_rows": 4})
    return run_dir


def _commit(run_dir: RunDir, shard: int, time_s: float, failed=()) -> None:
    units = UNITS if shard < 2 else UNITS[:2]
    run_dir.commit_shard(shard, output_table(units, failed=failed), units)
    path = Path(run_dir.path, "rows", f"shard-{shard:05d}.parquet")
    os.utime(path, (time_s, time_s))


def test_a_run_that_has_done_nothing_knows_only_its_size(run_dir):
    progress = read_progress(run_dir, now=0.0)
    assert (progress.num_rows, progress.num_shards, progress.finished_rows) == (10, 3, 0)
    assert (progress.rows_per_s, progress.eta_s, progress.idle_s) == (None, None, None)


def test_rate_and_remaining_time_follow_from_the_times_of_commits(run_dir):
    _commit(run_dir, 0, 1000.0, failed=UNITS[:1])
    _commit(run_dir, 1, 1002.0)
    progress = read_progress(run_dir, now=1005.0)
    assert (progress.finished_rows, progress.finished_shards, progress.failed_rows) == (8, 2, 1)
    assert progress.rows_per_s == 2.0
    assert progress.eta_s == 1.0
    assert progress.idle_s == 3.0
    assert not progress.sealed


def test_checkpoints_count_until_their_shard_is_finished(run_dir):
    run_dir.write_checkpoint(2, output_table(UNITS[:1]))
    assert read_progress(run_dir, now=0.0).checkpointed_rows == 1
    _commit(run_dir, 2, 1000.0)
    run_dir.write_checkpoint(2, output_table(UNITS[:1]))  # a slow worker that lost the race
    assert read_progress(run_dir, now=0.0).checkpointed_rows == 0


def test_a_finished_run_has_no_time_left(run_dir):
    for shard in range(3):
        _commit(run_dir, shard, 1000.0)
    run_dir.write_manifest({})
    progress = read_progress(run_dir, now=1000.0)
    assert progress.finished_rows == progress.num_rows
    assert progress.eta_s == 0.0
    assert progress.sealed


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(RunDirError, match="is not a run directory"):
        read_progress(RunDir(str(tmp_path)), now=0.0)
