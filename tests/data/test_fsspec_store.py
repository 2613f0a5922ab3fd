"""Laws of what fsspec opens: a store that fails is not an empty one,
whatever its package raises."""

import sys
from datetime import UTC, datetime
from types import ModuleType
from typing import ClassVar

import botocore.exceptions
import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from dynts_batch.data.files import storage as storage_module
from dynts_batch.data.files.storage import Storage
from dynts_batch.data.progress import read_progress
from dynts_batch.data.run_dir import RunDir
from dynts_batch.errors import RunDirError


def _foreign(module: str, name: str, parent: type[Exception] = Exception) -> type[Exception]:
    """The class that a package which is not installed here raises, by its real name."""
    return type(name, (parent,), {"__module__": module})


#: As gcsfs 2026.10, adlfs 2026.8 with azure-core 1.41 and s3fs 2026.9 raise them.
_AZURE = _foreign("azure.core.exceptions", "AzureError")
_FOREIGN = {
    "gcsfs.retry": [
        _foreign("gcsfs.retry", name)
        for name in ("HttpError", "ChecksumError", "NonRetryableError")
    ],
    "azure.core.exceptions": [
        _AZURE,
        _foreign("azure.core.exceptions", "HttpResponseError", _AZURE),
    ],
}
_RAISED = [
    *(error("503") for errors in _FOREIGN.values() for error in errors),
    botocore.exceptions.EndpointConnectionError(endpoint_url="http://store"),
    RuntimeError("Failed to upload block: 503!"),  # adlfs
    ValueError("Bad Request: invalid"),  # gcsfs
    TimeoutError("slow"),
]


class _Trouble(MemoryFileSystem):
    """Raises what `trouble` holds, one each time it is asked for anything."""

    protocol = "trouble"
    trouble: ClassVar[list[Exception]] = []

    def _fail(self) -> None:
        if self.trouble:
            raise self.trouble.pop()

    def info(self, path, **options):
        self._fail()
        return super().info(path, **options)

    def ls(self, path, detail=True, **options):
        self._fail()
        return super().ls(path, detail=detail, **options)

    def _open(self, path, *args, **options):
        self._fail()
        return super()._open(path, *args, **options)

    def rm(self, path, *args, **options):
        self._fail()
        return super().rm(path, *args, **options)


@pytest.fixture
def store(monkeypatch):
    for module, errors in _FOREIGN.items():
        fake = ModuleType(module)
        fake.__dict__.update({error.__name__: error for error in errors})
        monkeypatch.setitem(sys.modules, module, fake)
    monkeypatch.setattr(storage_module, "_RETRY_DELAYS_S", (0.0, 0.0))
    monkeypatch.setattr(_Trouble, "store", {})
    monkeypatch.setattr(_Trouble, "pseudo_dirs", [""])
    monkeypatch.setattr(_Trouble, "trouble", [])
    fsspec.register_implementation("trouble", _Trouble, clobber=True)
    storage = Storage("trouble://bucket/run")
    storage.write("rows/shard-00000.parquet", b"rows")
    return storage


@pytest.mark.parametrize("error", _RAISED, ids=lambda error: type(error).__name__)
def test_a_moment_of_trouble_changes_no_answer(store, error):
    for _ in range(2):
        _Trouble.trouble[:] = [error]
        assert store.read("rows/shard-00000.parquet") == b"rows"
        _Trouble.trouble[:] = [error]
        assert [info.base_name for info in store.list("rows")] == ["shard-00000.parquet"]
        _Trouble.trouble[:] = [error]
        store.write("rows/a", b"more")
        _Trouble.trouble[:] = [error]
        store.delete("rows/a")
        assert not _Trouble.trouble
        assert store.read("rows/a") is None


@pytest.mark.parametrize("error", _RAISED, ids=lambda error: type(error).__name__)
def test_lasting_trouble_is_a_run_dir_error_and_never_an_absence(store, error):
    """A store that did not answer was taken for a run directory without a single shard."""
    for action in (
        lambda: store.read("rows/shard-00000.parquet"),
        lambda: store.open("rows/shard-00000.parquet"),
        lambda: store.list("rows"),
        lambda: store.write("rows/a", b""),
        lambda: store.delete("rows/shard-00000.parquet"),
        lambda: RunDir("trouble://bucket/run").finished_shards(),
    ):
        _Trouble.trouble[:] = [error] * 9
        with pytest.raises(RunDirError, match=str(error)[:20]):
            action()
    _Trouble.trouble.clear()
    assert RunDir("trouble://bucket/run").finished_shards() == {0}


def test_trouble_in_the_middle_of_a_write_is_repeated(store, monkeypatch):
    write, trouble = fsspec.implementations.memory.MemoryFile.write, [_AZURE("reset")]

    def break_once(self, data):
        if trouble:
            raise trouble.pop()
        return write(self, data)

    monkeypatch.setattr(fsspec.implementations.memory.MemoryFile, "write", break_once)
    store.write("rows/a", b"whole")
    assert not trouble
    assert store.read("rows/a") == b"whole"


def test_what_no_waiting_mends_is_said_at_once(store):
    for error in (PermissionError("no"), _foreign("x", "Forbidden", OSError)("Forbidden: b")):
        _Trouble.trouble[:] = [error] * 3
        with pytest.raises(RunDirError):
            store.list("rows")
        assert len(_Trouble.trouble) == 2


def test_our_own_mistakes_are_not_taken_for_trouble(store):
    _Trouble.trouble[:] = [TypeError("ours")]
    with pytest.raises(TypeError, match="ours"):
        store.list("rows")


@pytest.mark.parametrize("name", ["mtime", "LastModified", "last_modified", "created", None])
def test_a_file_has_the_time_that_its_store_gives_under_whatever_name(store, monkeypatch, name):
    """pyarrow knows `mtime` alone: on s3fs and adlfs the progress of a
    run divided None by a number."""
    then = datetime(2026, 11, 29, tzinfo=UTC)

    def ls(self, path, detail=True, **options):
        entries = MemoryFileSystem.ls(self, path, detail=True, **options)
        times = {} if name is None else {name: then}
        return [{k: v for k, v in e.items() if k != "created"} | times for e in entries]

    monkeypatch.setattr(_Trouble, "ls", ls)
    (info,) = store.list("rows")
    assert info.mtime == (None if name is None else then)
    store.write_json("fingerprint.json", {"num_units": 3, "shard_rows": 2})
    progress = read_progress(RunDir("trouble://bucket/run"), now=then.timestamp() + 5)
    assert progress.finished_rows == 2
    assert progress.idle_s == (None if name is None else 5.0)
