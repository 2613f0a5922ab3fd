"""Laws of the export: every row once, in the order of the input, in files of the size asked for."""

import json
import shutil

import pyarrow.parquet as pq
import pytest
from fake_run import make_config
from local_run import finish_run

from dynts_batch.data.export import export
from dynts_batch.data.run_dir import RunDir
from dynts_batch.errors import ConfigError, RunDirError

UNITS = [(f"p{i}", k) for i in range(23) for k in range(3)]
SAMPLES = {"num_samples": 3, "temperature": 1.0, "max_new_tokens": 20}


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory) -> RunDir:
    return finish_run(make_config(tmp_path_factory.mktemp("run"), sampling=SAMPLES))


def _units(rows) -> list[tuple[str, int]]:
    return [(row["request_id"], row["sample_index"]) for row in rows]


def _lines(folder) -> list[dict]:
    texts = [path.read_text() for path in sorted(folder.iterdir())]
    return [json.loads(line) for text in texts for line in text.splitlines()]


@pytest.mark.parametrize(("file_bytes", "is_one_file"), [(1 << 20, True), (1, False)])
def test_parquet_is_ordered_and_as_large_as_asked(run_dir, tmp_path, file_bytes, is_one_file):
    assert export(run_dir, str(tmp_path / "out"), "parquet", file_bytes=file_bytes) == 69
    files = sorted((tmp_path / "out").glob("*.parquet"))
    assert (len(files) == 1) == is_one_file
    rows = [row for file in files for row in pq.read_table(file).to_pylist()]
    assert rows == [row for batch in run_dir.read_rows() for row in batch.to_pylist()]


def test_jsonl_holds_the_columns_asked_for(run_dir, tmp_path):
    columns = ["request_id", "sample_index", "answer"]
    out = tmp_path / "out"
    assert export(run_dir, str(out), "jsonl", file_bytes=500, columns=columns) == 69
    rows = _lines(out)
    assert _units(rows) == UNITS
    assert set(rows[0]) == set(columns)
    sizes = [path.stat().st_size for path in sorted(out.iterdir())]
    assert len(sizes) > 3
    assert all(500 <= size < 1000 for size in sizes[:-1])


def test_openai_has_one_line_a_request_with_all_its_samples(run_dir, tmp_path):
    assert export(run_dir, str(tmp_path / "out"), "openai", file_bytes=1 << 20) == 69
    lines = _lines(tmp_path / "out")
    assert [line["custom_id"] for line in lines] == [f"p{i}" for i in range(23)]
    assert all(len(line["response"]["body"]["choices"]) == 3 for line in lines)
    assert len({line["id"] for line in lines}) == 23


def test_a_datasets_folder_loads(run_dir, tmp_path):
    from datasets import load_from_disk

    assert export(run_dir, str(tmp_path / "out"), "datasets", file_bytes=20_000) == 69
    assert _units(load_from_disk(str(tmp_path / "out"))) == UNITS


def test_a_push_that_fails_is_one_line_without_the_token(run_dir, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setenv("HF_TOKEN", "hf_hushhushhush")
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(RunDirError, match="cannot push to 'me/rows' on the hub") as caught:
        export(run_dir, "me/rows", "hub", file_bytes=1 << 20)
    assert "hushhush" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unfinished_run_is_exported_only_if_that_is_meant(run_dir, tmp_path):
    unfinished = tmp_path / "run"
    shutil.copytree(run_dir.path, unfinished)
    (unfinished / "manifest.json").unlink()
    for path in sorted((unfinished / "rows").iterdir())[2:]:
        path.unlink()
    partial = RunDir(str(unfinished))
    with pytest.raises(RunDirError, match=r"is not finished: run `dynts-batch run`"):
        export(partial, str(tmp_path / "out"), "parquet", file_bytes=1 << 20)
    options = {"file_bytes": 1 << 20, "is_partial": True}
    assert export(partial, str(tmp_path / "out"), "parquet", **options) == 10


def test_a_wrong_column_and_a_folder_with_files_are_refused(run_dir, tmp_path):
    with pytest.raises(ConfigError, match=r"no such column: anser\. Did you mean answer\?"):
        export(run_dir, str(tmp_path / "out"), "jsonl", file_bytes=1, columns=["anser"])
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(ConfigError, match="must be a new or an empty folder"):
        export(run_dir, str(tmp_path), "jsonl", file_bytes=1)
