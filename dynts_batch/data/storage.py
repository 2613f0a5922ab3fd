"""One folder of whole files, on any filesystem pyarrow can open (a local path, s3://, gs://).

Owns the one difference between filesystems that durability hangs on: how a file comes to be
complete or absent, never half written. Knows nothing about what the files hold.
"""

from __future__ import annotations

import contextlib
import os
import uuid

import pyarrow as pa
from pyarrow import fs as pafs

from dynts_batch.errors import RunDirError

_TEMP_FOLDER = "tmp"


def open_filesystem(path: str) -> tuple[pafs.FileSystem, str]:
    """The filesystem of `path` (a local path or a URI) and the path on it.

    Raises:
        ValueError or OSError (pyarrow's): unknown scheme, or the store cannot be reached.
    """
    if "://" in path:
        return pafs.FileSystem.from_uri(path)
    return pafs.LocalFileSystem(), os.path.abspath(os.path.expanduser(path))


class Storage:
    """Reads and atomically replaces whole files below one root.

    Names are relative, with forward slashes, and come from this package: never from data. Every
    method raises RunDirError, naming the file, when the filesystem fails.
    """

    def __init__(self, root: str) -> None:
        try:
            self._fs, self._root = open_filesystem(root)
        except (OSError, ValueError) as error:
            raise RunDirError(f"cannot open {root}: {error}") from error

    def write(self, name: str, data: bytes | pa.Buffer) -> None:
        """Make `name` hold `data`, replacing what was there, at once or not at all."""
        try:
            if isinstance(self._fs, pafs.LocalFileSystem):
                self._write_and_rename(name, data)
            else:
                # An object appears, whole, when its upload ends: a rename would only copy it. The
                # data is complete before the stream opens, so no error of ours can cut it short.
                with self._fs.open_output_stream(self._path(name)) as stream:
                    stream.write(data)
        except OSError as error:
            raise RunDirError(f"cannot write {self._path(name)}: {error}") from error

    def read(self, name: str) -> bytes | None:
        """The content of `name`, or None if there is no such file."""
        try:
            with self._fs.open_input_stream(self._path(name), compression=None) as stream:
                return stream.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RunDirError(f"cannot read {self._path(name)}: {error}") from error

    def open(self, name: str) -> pa.NativeFile:
        """`name` opened for random access; the caller closes it."""
        try:
            return self._fs.open_input_file(self._path(name))
        except OSError as error:
            raise RunDirError(f"cannot read {self._path(name)}: {error}") from error

    def list(self, folder: str = "") -> list[pafs.FileInfo]:
        """The entries of `folder`, one listing, sorted by name; none if it does not exist."""
        selector = pafs.FileSelector(self._path(folder), allow_not_found=True)
        try:
            infos = self._fs.get_file_info(selector)
        except OSError as error:
            raise RunDirError(f"cannot list {self._path(folder)}: {error}") from error
        return sorted(infos, key=lambda info: info.base_name)

    def delete(self, name: str) -> None:
        """Remove `name`; nothing happens if it is not there."""
        try:
            self._fs.delete_file(self._path(name))
        except FileNotFoundError:
            return
        except OSError as error:
            raise RunDirError(f"cannot delete {self._path(name)}: {error}") from error

    def delete_temp_files(self) -> None:
        """Remove what writers that died left behind. Only while no other process writes."""
        for info in self.list(_TEMP_FOLDER):
            self.delete(f"{_TEMP_FOLDER}/{info.base_name}")

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def _write_and_rename(self, name: str, data: bytes | pa.Buffer) -> None:
        target = self._path(name)
        temp = self._path(f"{_TEMP_FOLDER}/{uuid.uuid4().hex}")
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.makedirs(os.path.dirname(temp), exist_ok=True)
        try:
            with open(temp, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())  # else a power loss may keep the name and lose the data
            os.replace(temp, target)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(temp)  # a full disk must not stay full because of us
            raise
