"""A filesystem that fsspec opens (az://, sftp://, ...), made to tell a failure from an absence.

Such stores have two habits that cost rows. Their packages raise errors of their own, which are not
OSErrors. And pyarrow asks fsspec's `isfile`, `exists` and `find`, which report "no such file" if
the store does not answer. Here every failure is an OSError, and only a FileNotFoundError means that
nothing is there.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from functools import partial
from typing import Any

import pyarrow as pa
from fsspec import AbstractFileSystem
from pyarrow import fs as pafs

#: What the packages behind fsspec raise besides OSError, by module.
_ERRORS = {
    "aiohttp.client_exceptions": ("ClientError",),  # gcsfs, http
    "azure.core.exceptions": ("AzureError",),  # adlfs
    "botocore.exceptions": ("BotoCoreError", "ClientError"),  # s3fs
    "gcsfs.retry": ("HttpError", "ChecksumError", "NonRetryableError"),
    "google.auth.exceptions": ("GoogleAuthError",),  # gcsfs
    "httpx": ("HTTPError",),  # huggingface_hub
    "httpx2": ("HTTPError",),  # newer releases of it
    "paramiko.ssh_exception": ("SSHException",),  # sftp
}


def open_store(filesystem: AbstractFileSystem) -> pafs.PyFileSystem:
    """`filesystem` for pyarrow."""
    return pafs.PyFileSystem(_Handler(_Translated(filesystem)))


#: The names that stores use for the time of writing. pyarrow knows only the first.
_TIMES = ("mtime", "LastModified", "last_modified", "created")


class _Handler(pafs.FSSpecHandler):
    """Always asks the store itself, never its cache of earlier answers."""

    @staticmethod
    def _create_file_info(path: str, info: Mapping[str, Any]) -> pafs.FileInfo:
        found = (info.get(name) for name in _TIMES)
        mtime = next((time for time in found if isinstance(time, datetime | float | int)), None)
        return pafs.FSSpecHandler._create_file_info(path, {**info, "mtime": mtime})

    def get_file_info(self, paths: list[str]) -> list[pafs.FileInfo]:
        self.fs.invalidate_cache()
        return super().get_file_info(paths)

    def get_file_info_selector(self, selector: pafs.FileSelector) -> list[pafs.FileInfo]:
        self.fs.invalidate_cache()
        try:
            if self.fs.info(selector.base_dir)["type"] != "directory":
                raise NotADirectoryError(selector.base_dir)
            return list(self._entries(selector.base_dir, is_recursive=selector.recursive))
        except FileNotFoundError:
            if selector.allow_not_found:
                return []
            raise

    def _entries(self, folder: str, *, is_recursive: bool) -> Iterator[pafs.FileInfo]:
        for entry in self.fs.ls(folder, detail=True):
            name = entry["name"]
            if name.strip("/") == folder.strip("/"):
                continue  # some stores list the folder itself
            yield self._create_file_info(name, entry)
            if is_recursive and entry["type"] == "directory":
                yield from self._entries(name, is_recursive=True)

    def delete_file(self, path: str) -> None:
        self.fs.rm(path)

    def open_input_stream(self, path: str) -> pa.PythonFile:
        return self._open(path)

    def open_input_file(self, path: str) -> pa.PythonFile:
        return self._open(path)

    def _open(self, path: str) -> pa.PythonFile:
        self.fs.invalidate_cache()
        return pa.PythonFile(self.fs.open(path, mode="rb"), mode="r")


class _Translated:
    """An fsspec filesystem, or a file of one, whose failures are OSErrors."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        return partial(_call, found) if callable(found) else found

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Translated) and bool(self._inner == other._inner)

    def __hash__(self) -> int:
        return hash(self._inner)


def _call(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    try:
        result = function(*args, **options)
    except OSError:
        raise
    except _store_errors() as error:
        raise OSError(f"{type(error).__name__}: {error}") from error
    return _Translated(result) if isinstance(result, io.IOBase) else result


def _store_errors() -> tuple[type[Exception], ...]:
    """The errors of the packages that are loaded.

    RuntimeError and ValueError too: adlfs wraps its errors in the first, gcsfs in the second.
    """
    found = [
        getattr(sys.modules[module], name)
        for module, names in _ERRORS.items()
        if module in sys.modules
        for name in names
    ]
    return (RuntimeError, ValueError, *found)
