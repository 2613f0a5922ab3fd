"""Laws of storage, on a local disk, on a real S3 server and on what fsspec opens."""

import os
import shutil
import time

import pyarrow as pa
import pytest
from s3_server import BUCKET

from dynts_batch.config import InputConfig
from dynts_batch.data.files import storage as storage_module
from dynts_batch.data.files.filesystem import extended, open_filesystem
from dynts_batch.data.files.storage import Storage
from dynts_batch.data.readers.reader import open_source
from dynts_batch.errors import RunDirError


@pytest.fixture
def store(root) -> Storage:
    store = Storage(root)
    store.create()
    return store


def test_a_file_is_absent_then_whole_then_replaced_then_gone(store):
    assert store.read("rows/a") is None
    assert store.list("rows") == []
    store.write("rows/a", b"one")
    store.write("rows/a", pa.py_buffer(b"two"))
    assert store.read("rows/a") == b"two"
    assert [info.base_name for info in store.list("rows")] == ["a"]
    with store.open("rows/a") as file:
        assert file.read() == b"two"
    store.delete("rows/a")
    store.delete("rows/a")
    assert store.read("rows/a") is None


def test_a_file_above_the_size_of_a_part_is_whole(store):
    data = os.urandom(12 << 20)
    store.write("rows/a", data)
    assert store.read("rows/a") == data


def test_opening_what_is_not_there_names_it(store):
    with pytest.raises(RunDirError, match=r"cannot read .*/rows/nothing"):
        store.open("rows/nothing")


def test_an_input_is_read_from_there_too(root):
    filesystem, path = open_filesystem(root)
    filesystem.create_dir(path)
    with filesystem.open_output_stream(f"{path}/data.jsonl") as stream:
        stream.write(b'{"q": "one"}\n{"q": "two"}\n')
    source = open_source(InputConfig(path=f"{root}/data.jsonl", prompt_column="q"))
    assert [row.prompt for row in source.rows(0, 2)] == ["one", "two"]


def test_failed_and_slow_writes_are_repeated_until_they_are_there(server, monkeypatch):
    monkeypatch.setattr(storage_module, "_RETRY_DELAYS_S", (0.01,) * 8)
    store = Storage(f"s3://{BUCKET}/faulty")
    server.failing_share, server.delay_s = 0.4, 0.02
    try:
        for index in range(5):
            store.write(f"rows/{index}", f"row {index}".encode())
    finally:
        server.failing_share = server.delay_s = 0.0
    assert server.num_failed > 1
    assert [store.read(f"rows/{index}") for index in range(5)] == [
        f"row {index}".encode() for index in range(5)
    ]


def test_a_store_that_stays_away_is_an_error_in_the_end(monkeypatch):
    monkeypatch.setattr(storage_module, "_RETRY_DELAYS_S", (0.01,))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATESTTESTTEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    store = Storage("s3://bucket/run?endpoint_override=127.0.0.1:9&scheme=http")
    with pytest.raises(RunDirError, match="cannot write bucket/run/a: ") as caught:
        store.write("a", b"data")
    assert "hush" not in str(caught.value)


def test_a_missing_bucket_is_said_at_once(server):
    began_s = time.monotonic()
    with pytest.raises(RunDirError, match="nowhere"):
        Storage("s3://nowhere/run").write("a", b"data")
    assert time.monotonic() - began_s < 5


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("ftq://host/run", "unknown scheme ftq://"),
        ("s3://bucket/run?profile=me", "unknown option 'profile'. Choices: region, scheme"),
    ],
)
def test_what_cannot_be_opened_is_named(uri, message):
    with pytest.raises(RunDirError, match=rf"cannot open {uri[:6]}.*{message}"):
        Storage(uri)


@pytest.mark.parametrize(
    ("path", "longer"),
    [
        ("s3://b/r1", "s3://b/r1-plan"),
        ("s3://b/r1/?region=us-east-1&scheme=http", "s3://b/r1-plan?region=us-east-1&scheme=http"),
        ("runs/r1//", "runs/r1-plan"),
        ("runs/really?/", "runs/really?-plan"),
    ],
)
def test_what_is_added_to_a_path_stands_before_the_options_of_its_uri(path, longer):
    """Behind them it was part of an option, and the folder was the run directory itself."""
    assert extended(path, "-plan") == longer


@pytest.mark.parametrize("between", ["//", "///"])
def test_slashes_without_a_name_between_them_are_one(server, between):
    """pyarrow calls such a path empty, and status ended in its traceback."""
    Storage(f"s3://{BUCKET}{between}runs{between}r1/").write("a", b"one")
    assert Storage(f"s3://{BUCKET}/runs/r1").read("a") == b"one"


def test_a_path_that_pyarrow_refuses_is_one_error_and_is_not_tried_again(server):
    began_s = time.monotonic()
    with pytest.raises(RunDirError, match=r"cannot read /runs/r1/a: ") as caught:
        Storage("s3:///runs/r1").read("a")
    assert "\n" not in str(caught.value)
    assert time.monotonic() - began_s < 0.9


def test_a_folder_that_vanished_does_not_come_back_half_empty(tmp_path):
    store = Storage(str(tmp_path / "run"))
    store.create()
    store.write("rows/a", b"one")
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(RunDirError, match=r"cannot write .*rows/b: .*No such file"):
        store.write("rows/b", b"two")
    assert not (tmp_path / "run").exists()
