"""One file of text, readable from any byte on.

A compressed one is unpacked into a temporary file first, which lives as long as its TextFile. Knows
nothing about what the text is.
"""

from __future__ import annotations

import lzma
import shutil
import tempfile
import weakref
from typing import IO, BinaryIO, cast

import pyarrow as pa
from pyarrow import fs as pafs

from dynts_batch.data.readers.unreadable import readable

_BLOCK_BYTES = 1 << 20
#: How compressed files begin, and by what they are compressed. Their names may say otherwise.
_MAGIC = {b"\x1f\x8b": "gzip", b"(\xb5/\xfd": "zstd", b"BZh": "bz2", b"\x04\x22\x4d\x18": "lz4"}
_XZ = b"\xfd7zXZ\x00"
#: Ends of names that are removed before the rest of the name tells the format.
SUFFIXES = (".gz", ".zst", ".zstd", ".bz2", ".lz4", ".xz")


class TextFile:
    """A file that can be opened any number of times."""

    def __init__(self, filesystem: pafs.FileSystem, path: str) -> None:
        """Raises: InputError if it cannot be read or unpacked."""
        self.path = path
        self._fs, self._inner = filesystem, path
        with readable(path):
            self._unpacked = self._unpack()
        if self._unpacked is not None:
            self._fs, self._inner = pafs.LocalFileSystem(), self._unpacked.name
            weakref.finalize(self, self._unpacked.close)

    def open(self) -> pa.NativeFile:
        """Open it at its first byte, a byte order mark included."""
        return self._fs.open_input_file(self._inner)

    def _unpack(self) -> IO[bytes] | None:
        with self._fs.open_input_stream(self.path, compression=None) as stream:
            start = stream.read(len(_XZ))
        if start == _XZ:
            with self._fs.open_input_stream(self.path, compression=None) as stream:
                return _copied(lzma.open(cast(BinaryIO, stream)))
        for magic, compression in _MAGIC.items():
            if start.startswith(magic):
                with self._fs.open_input_stream(self.path, compression=compression) as stream:
                    return _copied(stream)
        return None


def _copied(stream: pa.NativeFile | IO[bytes]) -> IO[bytes]:
    copy = tempfile.NamedTemporaryFile(prefix="dynts-batch-")  # noqa: SIM115  closed with its owner
    try:
        shutil.copyfileobj(stream, copy, _BLOCK_BYTES)
        copy.flush()
    except BaseException:
        copy.close()
        raise
    return cast(IO[bytes], copy)
