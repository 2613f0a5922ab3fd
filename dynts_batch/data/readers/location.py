"""Which files a path means, and their format.

A path is a file, a folder with all its files, or a pattern. Knows nothing about what formats hold.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib.resources import files

from pyarrow import fs as pafs

from dynts_batch.data.files.filesystem import open_filesystem
from dynts_batch.data.readers.formats.text_file import SUFFIXES as COMPRESSED
from dynts_batch.errors import InputError

_FORMATS = {
    "parquet": (".parquet", ".parq", ".pq"),
    "arrow": (".arrow", ".feather", ".ipc"),
    "jsonl": (".jsonl", ".ndjson", ".json"),
    "csv": (".csv", ".tsv"),
}
#: Beside other data, such a file only describes them, as in a data set of the hub.
_SIDE_FILE = ".json"
_WILD = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class Location:
    """`path`, maybe a folder or a pattern, is the name in messages; `infos`: its files in order."""

    filesystem: pafs.FileSystem
    path: str
    infos: Sequence[pafs.FileInfo]
    is_folder: bool

    @property
    def root(self) -> str:
        """The folder above all files. For a pattern: the part before its first wildcard."""
        parts = self.path.split("/")
        fixed = next((i for i, part in enumerate(parts) if _WILD.search(part)), len(parts))
        return "/".join(parts[: fixed - (not self.is_folder)])

    @classmethod
    def of(cls, given: str) -> Location:
        """Find `given`, a path or a URI as in input.path.

        Raises: InputError if nothing is there, or it cannot be reached.
        """
        location = given
        if given == "embedded":  # the problems that come with the package, as for model.name
            location = str(files("dynts_batch.lab") / "problems.parquet")
        try:
            return _find(location, given)
        except InputError:
            raise
        except (OSError, ValueError) as error:
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise InputError(f"cannot open input.path {given!r}: {reason}") from error

    def paths(self, format_: str) -> list[str]:
        """The files of `format_`: in a folder those with its endings, otherwise all."""
        paths = [info.path for info in self.infos]
        if not self.is_folder:
            return paths
        ends = _FORMATS.get(format_, _FORMATS["jsonl"])
        named = [path for path in paths if _bare(path).endswith(ends)]
        weighty = [path for path in named if not _bare(path).endswith(_SIDE_FILE)]
        return weighty or named

    def detected_format(self) -> str:
        """Raises: InputError if the names tell no format, or several."""
        names = [_bare(info.path) for info in self.infos]
        found = {f for f, ends in _FORMATS.items() for n in names if n.endswith(ends)}
        if len(found) > 1 and not any(n.endswith((".jsonl", ".ndjson")) for n in names):
            found -= {"jsonl"}
        if len(found) == 1:
            return found.pop()
        shown = f"both {' and '.join(sorted(found))}" if found else "none of them"
        ends = ", ".join(end for group in _FORMATS.values() for end in group)
        raise InputError(
            f"input.format cannot be told from {self.path}: files end in {ends}, or those and"
            f" {', '.join(COMPRESSED)}; found {shown}. Name the file, or set input.format"
        )


def _find(location: str, given: str) -> Location:
    filesystem, path = open_filesystem(location)
    info = filesystem.get_file_info(path)
    if info.type == pafs.FileType.File:
        return Location(filesystem, path, [info], is_folder=False)
    if info.type == pafs.FileType.Directory:
        return Location(filesystem, path, _below(filesystem, path), is_folder=True)
    if not _WILD.search(path):
        raise InputError(f"input.path must be a file or a folder, got {given!r}: not found")
    infos = _matching(filesystem, path)
    if not infos:
        raise InputError(f"input.path must match a file, got {given!r}: none does")
    return Location(filesystem, path, infos, is_folder=True)


def _below(filesystem: pafs.FileSystem, folder: str) -> list[pafs.FileInfo]:
    """All files below `folder` in order, without hidden files and markers."""
    found = filesystem.get_file_info(pafs.FileSelector(folder, recursive=True))
    relative = {file.path[len(folder) :].strip("/"): file for file in found if file.is_file}
    return [
        file
        for name, file in sorted(relative.items())
        if not any(part.startswith((".", "_")) for part in name.split("/"))
    ]


def _matching(filesystem: pafs.FileSystem, pattern: str) -> list[pafs.FileInfo]:
    """The files that `pattern` matches, or that are below a matching folder; ** is any depth."""
    parts = pattern.split("/")
    fixed = next(i for i, part in enumerate(parts) if _WILD.search(part))
    folder = "/".join(parts[:fixed]) or "/"
    if filesystem.get_file_info(folder).type != pafs.FileType.Directory:
        return []
    matches = _matcher(parts[fixed:])
    return [
        file for file in _below(filesystem, folder) if matches(file.path[len(folder) :].strip("/"))
    ]


def _matcher(parts: Sequence[str]) -> Callable[[str], bool]:
    """A test whether a path, or a folder above it, matches the pattern of `parts`."""

    def matches(names: Sequence[str], parts: Sequence[str]) -> bool:
        if not parts:
            return True
        if parts[0] == "**":
            return any(matches(names[depth:], parts[1:]) for depth in range(len(names) + 1))
        return bool(names) and fnmatchcase(names[0], parts[0]) and matches(names[1:], parts[1:])

    return lambda path: matches(path.split("/"), parts)


def _bare(path: str) -> str:
    """`path` without the ending that tells the compression."""
    for suffix in COMPRESSED:
        path = path.removesuffix(suffix)
    return path
