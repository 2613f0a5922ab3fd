"""Laws of the run directory: a shard is whole or absent, whatever dies and wherever."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from output_rows import SCHEMA, UNITS, output_table
from report_runs import SAMPLE

from dynts_batch.config import Config, RunConfig
from dynts_batch.data.files.storage import Storage
from dynts_batch.data.readers.samples import SCHEMA as SAMPLES
from dynts_batch.data.run_dir import RunDir
from dynts_batch.errors import FingerprintError, RunDirError

FINGERPRINT = {"num_units": 10, "shard_rows": 4, "model": {"name": "embedded", "revision": None}}
CONFIG = Config(run=RunConfig(dir="out"))


@pytest.fixture
def run_dir(tmp_path) -> RunDir:
    run_dir = RunDir(str(tmp_path / "run"))
    run_dir.create_or_resume(CONFIG, FINGERPRINT)
    return run_dir


# ---- create and resume -------------------------------------------------------------------------


def test_the_same_fingerprint_resumes(run_dir):
    assert not run_dir.create_or_resume(CONFIG, FINGERPRINT)
    assert run_dir.fingerprint() == FINGERPRINT


def test_another_fingerprint_is_refused_with_every_difference(run_dir):
    other = {"num_units": 10, "shard_rows": 8, "model": {"name": "embedded"}, "seed": 1}
    with pytest.raises(FingerprintError) as caught:
        run_dir.create_or_resume(CONFIG, other)
    assert "shard_rows: 4 there, 8 now" in str(caught.value)
    assert "seed: absent there, 1 now" in str(caught.value)
    assert "name" not in str(caught.value)
    assert run_dir.fingerprint() == FINGERPRINT


def test_tuples_and_lists_are_the_same_fingerprint(tmp_path):
    run_dir = RunDir(str(tmp_path))
    assert run_dir.create_or_resume(CONFIG, FINGERPRINT | {"stop": (1, 2)})
    assert not run_dir.create_or_resume(CONFIG, FINGERPRINT | {"stop": [1, 2]})


def test_a_folder_with_other_things_in_it_is_refused_untouched(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(RunDirError, match=r"got .* with thesis\.tex and no fingerprint\.json"):
        RunDir(str(tmp_path)).create_or_resume(CONFIG, FINGERPRINT)
    assert os.listdir(tmp_path) == ["thesis.tex"]


def test_a_file_in_the_way_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(RunDirError, match="file"):
            RunDir(str(path)).create_or_resume(CONFIG, FINGERPRINT)


def test_what_is_no_run_directory_says_so(tmp_path):
    with pytest.raises(RunDirError, match=r"is not a run directory: it has no fingerprint\.json"):
        RunDir(str(tmp_path)).fingerprint()
    with pytest.raises(RunDirError, match="cannot open foo://x"):
        RunDir("foo://x")


def test_damaged_files_are_named(run_dir):
    for text in ("{", "[1]", ""):
        Path(run_dir.path, "manifest.json").write_text(text)
        with pytest.raises(RunDirError, match=r"manifest\.json is damaged"):
            run_dir.read_manifest()
    for value in ("", ', "shard_rows": 0', ', "shard_rows": "4"', ', "shard_rows": true'):
        Path(run_dir.path, "fingerprint.json").write_text(f'{{"num_units": 10{value}}}')
        with pytest.raises(
            RunDirError, match=r"print\.json is damaged: shard_rows must be a count"
        ):
            run_dir.fingerprint()
    Path(run_dir.path, "config.yaml").write_bytes(b"\xff")
    with pytest.raises(RunDirError, match=r"config\.yaml is damaged: .* Starting the run again"):
        run_dir.config()
    run_dir.write_checkpoint(0, output_table())
    Path(run_dir.path, "checkpoints", "shard-00000.parquet").write_bytes(b"PAR1")
    with pytest.raises(RunDirError, match=r"shard-00000\.parquet is damaged: .* Delete it to comp"):
        run_dir.read_checkpoint(0)


def test_a_run_directory_can_be_sent_to_workers(run_dir):
    assert pickle.loads(pickle.dumps(run_dir)).fingerprint() == FINGERPRINT


def test_the_manifest_is_absent_until_written(run_dir):
    assert run_dir.read_manifest() is None
    run_dir.write_manifest({"rows": 10})
    assert run_dir.read_manifest() == {"rows": 10}


# ---- shards ------------------------------------------------------------------------------------


def test_a_committed_shard_is_finished_and_in_the_order_of_the_plan(run_dir):
    run_dir.commit_shard(7, output_table(reversed(UNITS)), UNITS)
    assert run_dir.finished_shards() == {7}
    table = run_dir.read_shard(7)
    assert table.schema.equals(SCHEMA, check_metadata=True)
    pairs = zip(table["request_id"].to_pylist(), table["sample_index"].to_pylist(), strict=True)
    assert list(pairs) == UNITS
    assert os.listdir(Path(run_dir.path, "rows")) == ["shard-00007.parquet"]


@pytest.mark.parametrize(
    ("units", "message"),
    [
        (UNITS[:3], r"got 3 rows; missing: \[\('b', 1\)\], repeated or foreign: \[\]"),
        ([*UNITS, UNITS[0]], r"got 5 rows; missing: \[\], repeated or foreign: \[\('a', 0\)\]"),
        ([*UNITS[:3], ("c", 0)], r"missing: \[\('b', 1\)\], repeated or foreign: \[\('c', 0\)\]"),
        ([*UNITS[:3], UNITS[0]], r"missing: \[\('b', 1\)\], repeated or foreign: \[\('a', 0\)\]"),
    ],
)
def test_rows_in_that_are_not_rows_out_are_never_committed(run_dir, units, message):
    with pytest.raises(RunDirError, match=f"shard 1 must hold .* 4 units once, .*{message}"):
        run_dir.commit_shard(1, output_table(units), UNITS)
    assert run_dir.finished_shards() == set()


def test_committing_again_replaces(run_dir):
    run_dir.commit_shard(0, output_table(answer="old"), UNITS)
    run_dir.commit_shard(0, output_table(answer="new"), UNITS)
    rows = [row for batch in run_dir.read_rows() for row in batch.to_pylist()]
    assert [row["answer"] for row in rows] == ["new"] * 4


def test_rows_stream_in_the_order_of_shards_with_the_columns_asked_for(run_dir):
    for shard in (100_000, 2, 10):
        run_dir.commit_shard(shard, output_table(answer=str(shard)), UNITS)
    batches = list(run_dir.read_rows(["answer"]))
    assert pa.Table.from_batches(batches)["answer"].unique().to_pylist() == ["2", "10", "100000"]
    assert batches[0].schema.names == ["answer"]


def test_committed_rows_load_as_a_data_set(run_dir, tmp_path):
    run_dir.commit_shard(0, output_table(), UNITS)
    run_dir.commit_shard(1, output_table(failed=UNITS), UNITS)
    rows = datasets.load_dataset(
        "parquet", data_dir=f"{run_dir.path}/rows", cache_dir=str(tmp_path / "cache")
    )
    assert rows["train"].num_rows == 8


# ---- checkpoints -------------------------------------------------------------------------------


def test_a_checkpoint_holds_the_rows_done_so_far_until_the_shard_is_committed(run_dir):
    assert run_dir.read_checkpoint(0) is None
    run_dir.write_checkpoint(0, output_table(UNITS[:1]))
    run_dir.write_checkpoint(0, output_table(UNITS[:2]))
    assert run_dir.read_checkpoint(0).num_rows == 2
    assert run_dir.finished_shards() == set()
    run_dir.commit_shard(0, output_table(), UNITS)
    assert run_dir.read_checkpoint(0) is None


# ---- failed rows -------------------------------------------------------------------------------


def test_failed_units_are_those_whose_rows_are_errors(run_dir):
    run_dir.commit_shard(0, output_table(), UNITS)
    run_dir.commit_shard(1, output_table(failed=UNITS[1:3]), UNITS)
    assert run_dir.failed_units() == {1: UNITS[1:3]}
    errors = list(run_dir.read_errors())
    assert [(row["request_id"], row["sample_index"]) for row in errors] == UNITS[1:3]
    assert errors[0]["error_type"] == "BadRowError"
    assert errors[0]["error_message"] == "line 1: bad\nhere"


def test_a_retry_that_mends_a_shard_leaves_no_errors(run_dir):
    run_dir.commit_shard(1, output_table(failed=UNITS), UNITS)
    run_dir.commit_shard(1, output_table(), UNITS)
    assert run_dir.failed_units() == {}
    assert list(run_dir.read_errors()) == []


def test_errors_left_by_a_crash_say_nothing_about_rows_that_are_fine(run_dir):
    """A crash between the mended shard and the removal of its errors file."""
    run_dir.commit_shard(1, output_table(failed=UNITS), UNITS)
    stale = Path(run_dir.path, "errors", "shard-00001.jsonl").read_bytes()
    run_dir.commit_shard(1, output_table(), UNITS)
    Path(run_dir.path, "errors", "shard-00001.jsonl").write_bytes(stale)
    Path(run_dir.path, "errors", "shard-00009.jsonl").write_bytes(stale)  # never committed
    assert run_dir.failed_units() == {}


# ---- telemetry ---------------------------------------------------------------------------------


def test_telemetry_is_read_by_worker_and_part(run_dir):
    for worker, part in (("worker-1", 1), ("worker-0", 0), ("worker-1", 0)):
        sample = SAMPLE | {"worker_id": worker, "busy_s": float(part)}
        run_dir.write_telemetry(worker, part, pa.Table.from_pylist([sample], SAMPLES))
    rows = [row for table in run_dir.read_telemetry() for row in table.to_pylist()]
    who = [(row["worker_id"], row["busy_s"]) for row in rows]
    assert who == [("worker-0", 0), ("worker-1", 0), ("worker-1", 1)]


def test_a_damaged_part_of_telemetry_hides_no_other(run_dir, caplog):
    for part in range(3):
        samples = pa.Table.from_pylist([SAMPLE | {"busy_s": float(part)}], SAMPLES)
        run_dir.write_telemetry("w", part, samples)
    Path(run_dir.path, "workers", "w-00001.parquet").write_bytes(b"PAR1")
    with pytest.raises(RunDirError, match=r"w-00001\.parquet is damaged: .* go on without it"):
        list(run_dir.read_telemetry())
    found = [part["busy_s"][0].as_py() for part in run_dir.read_telemetry(skip_damaged=True)]
    assert found == [0.0, 2.0]
    assert "w-00001.parquet is damaged" in caplog.text


@pytest.mark.parametrize("worker_id", ["../w", "a/b", "", ".hidden", "a b"])
def test_a_worker_id_cannot_leave_its_folder(run_dir, worker_id):
    with pytest.raises(AssertionError):
        run_dir.write_telemetry(worker_id, 0, pa.table({"x": [1]}))


# ---- crashes -----------------------------------------------------------------------------------


class Crash(BaseException):
    """Stands for the death of the process: nothing may catch it."""


def _commit_and_die(run_dir: RunDir, monkeypatch, step: int) -> bool:
    """Commit a shard, dying at the `step`-th system call that changes a file; True if it died."""
    left = step

    def countdown(function):
        def call(*args, **kwargs):
            nonlocal left
            left -= 1
            if left < 0:
                raise Crash
            return function(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        for name in ("fsync", "replace", "mkdir"):
            patch.setattr(os, name, countdown(getattr(os, name)))
        patch.setattr(Storage, "delete", countdown(Storage.delete))
        try:
            run_dir.commit_shard(0, output_table(failed=UNITS[:1]), UNITS)
        except Crash:
            return True
    return False


def test_dying_at_any_step_of_a_commit_leaves_a_whole_shard_or_none(tmp_path, monkeypatch):
    for step in range(100):
        run_dir = RunDir(str(tmp_path / str(step)))
        run_dir.create_or_resume(CONFIG, FINGERPRINT)
        run_dir.write_checkpoint(0, output_table(UNITS[:2]))
        died = _commit_and_die(run_dir, monkeypatch, step)
        if run_dir.finished_shards():
            assert run_dir.read_shard(0).num_rows == 4
            assert run_dir.failed_units() == {0: UNITS[:1]}
        else:
            assert run_dir.read_checkpoint(0).num_rows == 2
        assert not run_dir.create_or_resume(CONFIG, FINGERPRINT)
        assert not list((tmp_path / str(step)).glob("tmp/*"))
        run_dir.commit_shard(0, output_table(failed=UNITS[:1]), UNITS)
        assert run_dir.failed_units() == {0: UNITS[:1]}
        if not died:
            break
    assert step > 5


def test_a_full_disk_is_a_clear_error_and_leaves_nothing_behind(run_dir, monkeypatch):
    def no_space(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(RunDirError, match=r"cannot write .*shard-00000\.parquet: .*No space left"):
        run_dir.commit_shard(0, output_table(), UNITS)
    assert run_dir.finished_shards() == set()
    assert os.listdir(Path(run_dir.path, "tmp")) == []


_WRITER = """
import sys
sys.path[:0] = sys.argv[2:]
from dynts_batch.data.run_dir import RunDir
from output_rows import UNITS, output_table
run_dir = RunDir(sys.argv[1])
table = output_table(answer="x" * 2_000_000)
for shard in range(100_000):
    run_dir.write_checkpoint(shard, table)
    run_dir.commit_shard(shard % 3, table, UNITS)
    print(shard, flush=True)
"""


def test_kill_9_in_the_middle_of_commits_leaves_whole_shards(run_dir):
    root = Path(__file__).parents[2]
    paths = [str(root / "tests" / "support" / "runs"), str(root)]
    process = subprocess.Popen(
        [sys.executable, "-c", _WRITER, run_dir.path, *paths],
        stdout=subprocess.PIPE,
    )
    with process:
        while process.stdout.readline().strip() != b"4":
            assert process.poll() is None
        time.sleep(0.02)  # somewhere in the next commit
        process.send_signal(signal.SIGKILL)
    assert run_dir.finished_shards() == {0, 1, 2}
    for shard in range(3):
        assert run_dir.read_shard(shard).num_rows == 4
    for file in Path(run_dir.path, "checkpoints").iterdir():
        assert pq.read_table(file).num_rows == 4


def test_json_files_end_with_a_newline_and_can_be_read_by_people(run_dir):
    text = Path(run_dir.path, "fingerprint.json").read_text()
    assert text.endswith("}\n")
    assert json.loads(text) == FINGERPRINT
