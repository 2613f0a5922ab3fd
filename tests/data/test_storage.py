"""Laws of storage on a filesystem that is not local: pyarrow's in-memory stand-in for a store."""

import pyarrow as pa
import pytest
from pyarrow import fs as pafs

from dynts_batch.data import storage
from dynts_batch.data.storage import Storage
from dynts_batch.errors import RunDirError


@pytest.fixture(params=["local", "store"])
def store(request, tmp_path, monkeypatch) -> Storage:
    if request.param == "store":
        memory = pafs._MockFileSystem()
        monkeypatch.setattr(storage, "open_filesystem", lambda path: (memory, "bucket/run"))
        memory.create_dir("bucket/run/rows")  # stores have no folders; the stand-in insists
        return Storage("mock://bucket/run")
    return Storage(str(tmp_path / "run"))


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


def test_opening_what_is_not_there_names_it(store):
    with pytest.raises(RunDirError, match=r"cannot read .*run/rows/nothing"):
        store.open("rows/nothing")
