"""The files of a data set as they were when it was opened.

A run reads its input for hours, by positions that it learnt at the start. A file that changes
meanwhile would silently give other rows. Knows nothing about what the files hold.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from pyarrow import fs as pafs

from dynts_batch.errors import InputError

_REMOTE_CHECK_S = 60.0  # each check costs a request per file, and objects are seldom overwritten


class Snapshot:
    """Sizes and times of change of some files."""

    def __init__(self, filesystem: pafs.FileSystem, infos: Sequence[pafs.FileInfo]) -> None:
        self._fs = filesystem
        self._seen = {info.path: (info.size, info.mtime_ns) for info in infos}
        self._every_s = 0.0 if isinstance(filesystem, pafs.LocalFileSystem) else _REMOTE_CHECK_S
        self._checked_at_s = time.monotonic()

    def check(self) -> None:
        """Raises: InputError if one of the files has changed or is gone."""
        if time.monotonic() < self._checked_at_s + self._every_s:
            return
        self._checked_at_s = time.monotonic()
        try:
            infos = self._fs.get_file_info(list(self._seen))
        except OSError as error:
            raise InputError(f"cannot read {min(self._seen)}: {error}") from error
        for info in infos:
            if self._seen[info.path] != (info.size, info.mtime_ns):
                raise InputError(
                    f"{info.path} must stay as it is while a run reads it, and was changed or"
                    " removed: restore it and run again, or choose another run.dir"
                )
