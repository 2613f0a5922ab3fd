"""One folder of whole files, on any filesystem that filesystem.py can open.

Owns the one difference between filesystems that durability depends on: how a file becomes complete
or stays absent, never half written. Also waits for stores that are away for a moment. Knows nothing
about what the files hold.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import pyarrow as pa
from pyarrow import fs as pafs

from dynts_batch.data.files.filesystem import open_filesystem
from dynts_batch.errors import RunDirError

logger = logging.getLogger(__name__)

T = TypeVar("T")

_TEMP_FOLDER = "tmp"
_RETRY_DELAYS_S = (1.0, 2.0, 4.0, 8.0, 16.0)
#: Errors that no waiting mends, in the words of S3 and of the packages behind fsspec.
_FINAL = (
    *("ACCESS_DENIED", "NO_SUCH_BUCKET", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH"),
    *("ClientAuthenticationError", "DefaultCredentialsError", "NoCredentialsError", "Forbidden"),
)


class Storage:
    """Reads and atomically replaces whole files below one root.

    Names are relative, with forward slashes. They come from this package, never from data. Every
    method raises RunDirError, which names the file, if the filesystem fails: a local one at once, a
    store on the network after half a minute of retries.
    """

    def __init__(self, root: str) -> None:
        self._given = root  # the name in messages about contents
        try:
            self._fs, self._root = open_filesystem(root)
        except (OSError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise RunDirError(f"cannot open {root}: {reason}") from error
        self._is_local = isinstance(self._fs, pafs.LocalFileSystem)

    def create(self) -> None:
        """Make the root. Nothing else does: a folder that vanishes must not return half empty."""
        if self._is_local:
            self._try("create", "", lambda: os.makedirs(self._root, exist_ok=True))

    def write(self, name: str, data: bytes | pa.Buffer) -> None:
        """Make `name` hold `data`, replacing what was there. It happens whole or not at all."""
        write = self._write_and_rename if self._is_local else self._upload
        self._try("write", name, lambda: write(name, data))

    def read(self, name: str) -> bytes | None:
        """The content of `name`, or None if there is no such file."""
        try:
            return self._try("read", name, lambda: self._read(name))
        except FileNotFoundError:
            return None

    def read_json(self, name: str) -> dict[str, Any] | None:
        """The JSON object of a file; None if the file does not exist.

        Raises: RunDirError if it holds anything else.
        """
        data = self.read(name)
        if data is None:
            return None
        try:
            value = json.loads(data)
        except ValueError as error:
            raise RunDirError(f"{self._given}/{name} is damaged: {error}") from error
        if not isinstance(value, dict):
            raise RunDirError(f"{self._given}/{name} is damaged: it must hold a JSON object")
        return value

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        self.write(name, f"{json.dumps(value, indent=2)}\n".encode())

    def open(self, name: str) -> pa.NativeFile:
        """`name` opened for random access; the caller closes it."""
        try:
            return self._try("read", name, lambda: self._fs.open_input_file(self._path(name)))
        except FileNotFoundError as error:
            raise RunDirError(f"cannot read {self._path(name)}: {error}") from error

    def list(self, folder: str = "") -> list[pafs.FileInfo]:
        """The entries of `folder` from one listing, by name; none if the folder does not exist."""
        selector = pafs.FileSelector(self._path(folder), allow_not_found=True)
        infos = self._try("list", folder, lambda: self._fs.get_file_info(selector))
        # Some stores have an entry for the folder itself.
        infos = [info for info in infos if info.path.rstrip("/") != self._path(folder).rstrip("/")]
        return sorted(infos, key=lambda info: info.base_name)

    def delete(self, name: str) -> None:
        """Remove `name`; nothing happens if it is not there."""
        with contextlib.suppress(FileNotFoundError):
            self._try("delete", name, lambda: self._fs.delete_file(self._path(name)))

    def delete_temp_files(self) -> None:
        """Remove what dead writers left behind. Call it only while no other process writes."""
        for info in self.list(_TEMP_FOLDER):
            self.delete(f"{_TEMP_FOLDER}/{info.base_name}")
        if self._is_local:
            with contextlib.suppress(OSError):
                os.rmdir(self._path(_TEMP_FOLDER))

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def _read(self, name: str) -> bytes:
        with self._fs.open_input_stream(self._path(name), compression=None) as stream:
            return stream.read()

    def _upload(self, name: str, data: bytes | pa.Buffer) -> None:
        """Write an object. It appears, whole, when its upload ends; a rename would only copy it.

        The data is complete before the stream opens, so no error of ours can cut it short.
        """
        path = self._path(name)
        with self._fs.open_output_stream(path) as stream:
            stream.write(data)
        size, written = memoryview(data).nbytes, self._fs.get_file_info(path).size
        if written != size:
            raise OSError(f"{size} bytes were sent, and {written} are there")

    def _write_and_rename(self, name: str, data: bytes | pa.Buffer) -> None:
        target = self._path(name)
        temp = self._path(f"{_TEMP_FOLDER}/{uuid.uuid4().hex}")
        for path in (target, temp):
            folder = os.path.dirname(path)
            if folder != self._root:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(folder)
        try:
            with open(temp, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())  # or a power loss may keep the name and lose the data
            os.replace(temp, target)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(temp)  # a full disk must not stay full because of us
            raise

    def _try(self, verb: str, name: str, action: Callable[[], T]) -> T:
        """The result of `action`, repeated while a store on the network fails.

        Raises: RunDirError. If reading or deleting finds no file: FileNotFoundError.
        """
        for delay_s in (*_RETRY_DELAYS_S, None):
            try:
                return action()
            except (OSError, pa.ArrowInvalid) as error:  # the second: pyarrow refuses the path
                if isinstance(error, FileNotFoundError) and verb in ("read", "delete"):
                    raise
                is_final = self._is_local or _is_final(error)
                if is_final or delay_s is None:
                    path = self._path(name)
                    raise RunDirError(f"cannot {verb} {path}: {error}") from error
                logger.warning("cannot %s %s, trying again: %s", verb, self._path(name), error)
                time.sleep(delay_s)
        raise AssertionError("the last delay is None")


def _is_final(error: Exception) -> bool:
    is_final_kind = isinstance(error, (PermissionError, pa.ArrowInvalid))
    return is_final_kind or any(words in str(error) for words in _FINAL)
