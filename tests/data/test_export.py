"""Laws of the export: every row once, in the order of the input, in files of the size asked for."""

import json
import shutil
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_run import make_config, write_config
from local_run import finish_run

from dynts_batch.config_file import load_config
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


def test_a_folder_that_is_no_run_says_so(tmp_path):
    """It was said to be unfinished, and to be run first: a folder of several runs."""
    with pytest.raises(RunDirError, match=r"is not a run directory: it has no fingerprint\.json"):
        export(RunDir(str(tmp_path)), str(tmp_path / "out"), "parquet", file_bytes=1)


def test_a_wrong_column_and_a_folder_with_files_are_refused(run_dir, tmp_path):
    with pytest.raises(ConfigError, match=r"no such column: anser\. Did you mean answer\?"):
        export(run_dir, str(tmp_path / "out"), "jsonl", file_bytes=1, columns=["anser"])
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(ConfigError, match="must be a new or an empty folder"):
        export(run_dir, str(tmp_path), "jsonl", file_bytes=1)


# ---- columns of every type -----------------------------------------------------------------------


def _run_over(folder, **columns) -> RunDir:
    """A finished run whose input has `columns` beside its prompts."""
    num_rows = len(next(iter(columns.values())))
    table = pa.table(
        {"id": [f"p{i}" for i in range(num_rows)], "question": ["x"] * num_rows} | columns
    )
    folder.mkdir(exist_ok=True)
    with pa.ipc.new_file(folder / "data.arrow", table.schema) as writer:
        writer.write_table(table)
    keys = {"reference_column": None}
    return finish_run(load_config(str(write_config(folder, folder / "data.arrow", input=keys))))


def test_jsonl_is_valid_json_whatever_the_columns_hold(tmp_path):
    """NaN stood in it bare, which JSON has no word for;
    an infinite date ended it with a traceback."""
    run_dir = _run_over(
        tmp_path / "run",
        number=pa.array([float("nan"), float("-inf"), 0.5]),
        nested=pa.array([[float("nan"), 1.0], None, []]),
        when=pa.array([2**63 - 1, None, 0]).view(pa.timestamp("us")),
        price=pa.array([Decimal("42.00"), None, Decimal("-1.50")]),
        data=pa.array([b"\xff", None, b""]),
        text=pa.array([b"\xff\xfe", b"fine", None]).view(pa.string()),
        pairs=pa.array([[("a", 1)], None, []], pa.map_(pa.string(), pa.int64())),
    )
    assert export(run_dir, str(tmp_path / "out"), "jsonl", file_bytes=1 << 20) == 3
    (file,) = (tmp_path / "out").iterdir()
    rows = [json.loads(line, parse_constant=pytest.fail) for line in file.read_text().splitlines()]
    names = ("number", "nested", "when", "price", "data", "text", "pairs")
    assert [[row[name] for name in names] for row in rows] == [
        [None, [None, 1.0], "294247-01-10T04:00:54.775807", "42.00", "/w==", "\ufffd\ufffd",
         [["a", 1]]],
        [None, None, None, None, None, "fine", None],
        [0.5, [], "1970-01-01T00:00:00", "-1.50", "", None, []],
    ]  # fmt: skip


@pytest.mark.parametrize("format_", ["datasets", "hub"])
def test_a_column_that_datasets_cannot_hold_is_named_before_anything_is_written(tmp_path, format_):
    pairs = pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64()))
    run_dir = _run_over(tmp_path / "run", pairs=pairs)
    with pytest.raises(
        ConfigError, match=r"column 'pairs' is map<.*>, which .* cannot hold.*--columns"
    ) as caught:
        export(run_dir, str(tmp_path / "out"), format_, file_bytes=1 << 20)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
    columns = ["request_id", "answer"]
    if format_ == "datasets":
        assert (
            export(run_dir, str(tmp_path / "out"), "datasets", file_bytes=1, columns=columns) == 1
        )


def test_parquet_holds_what_parquet_has_no_type_for(tmp_path):
    parts = pa.array([(1, 2, 3), None], pa.month_day_nano_interval())
    run_dir = _run_over(tmp_path / "run", parts=parts)
    export(run_dir, str(tmp_path / "out"), "parquet", file_bytes=1 << 20)
    (file,) = (tmp_path / "out").iterdir()
    expected = [{"months": 1, "days": 2, "nanoseconds": 3}, None]
    assert pq.read_table(file)["parts"].to_pylist() == expected


def test_openai_lines_are_what_the_official_client_requires(run_dir, tmp_path):
    """`created` was not there, which the client's own models refuse.
    The required fields are those of openai 2.x."""
    export(run_dir, str(tmp_path / "out"), "openai", file_bytes=1 << 20)
    for line in _lines(tmp_path / "out"):
        body = line["response"]["body"]
        assert {"id", "choices", "created", "model", "object"} <= body.keys()
        assert isinstance(body["created"], int)
        assert body["created"] > 1_700_000_000
        for choice in body["choices"]:
            assert {"finish_reason", "index", "logprobs", "message"} <= choice.keys()
            assert {"content", "refusal", "role"} <= choice["message"].keys()
        assert {"completion_tokens", "prompt_tokens", "total_tokens"} <= body["usage"].keys()
