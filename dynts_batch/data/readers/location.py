"""Which files a path means, and their format.

A path is a file, a folder or a pattern. Of a folder, only the files with a format's endings count;
a pattern names files, and all of them count. Knows nothing about what formats hold.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
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
    root: str
    """The folder above all files. For a pattern: the part before its first wildcard."""
    named: Collection[str]
    """Paths of the files that `path` itself names; the others are in a folder that it names."""

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
        """The files of `format_`: all that are named, and those in folders with its endings."""
        paths = [info.path for info in self.infos]
        ends = _FORMATS.get(format_, _FORMATS["jsonl"])
        found = [path for path in paths if path not in self.named and _bare(path).endswith(ends)]
        weighty = [path for path in found if not _bare(path).endswith(_SIDE_FILE)]
        chosen = {*self.named, *(weighty or found)}
        return [path for path in paths if path in chosen]

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
        return Location(filesystem, path, [info], path.rpartition("/")[0], {path})
    if info.type == pafs.FileType.Directory:
        infos = [file for names, file in _below(filesystem, path) if not _has_hidden(names)]
        return Location(filesystem, path, infos, path, ())
    if not _WILD.search(path):
        raise InputError(f"input.path must be a file or a folder, got {given!r}: not found")
    found = _matching(filesystem, path)
    if not found.infos:
        raise InputError(f"input.path must match a file, got {given!r}: none does")
    return found


def _below(
    filesystem: pafs.FileSystem, folder: str
) -> Iterator[tuple[Sequence[str], pafs.FileInfo]]:
    """All files below `folder` in order, each after the parts of its path from there."""
    found = filesystem.get_file_info(pafs.FileSelector(folder, recursive=True))
    relative = {file.path[len(folder) :].strip("/"): file for file in found if file.is_file}
    for name, file in sorted(relative.items()):
        yield name.split("/"), file


def _matching(filesystem: pafs.FileSystem, pattern: str) -> Location:
    """The files that `pattern` matches, or that are below a matching folder; ** is any depth."""
    parts = pattern.split("/")
    fixed = next(i for i, part in enumerate(parts) if _WILD.search(part))
    root, wild = "/".join(parts[:fixed]), parts[fixed:]
    infos: list[pafs.FileInfo] = []
    named: set[str] = set()
    if filesystem.get_file_info(root or "/").type == pafs.FileType.Directory:
        for names, file in _below(filesystem, root or "/"):
            if _matches(names, wild):
                named.add(file.path)
            elif not any(
                _matches(names[:depth], wild) and not _has_hidden(names[depth:])
                for depth in range(1, len(names))
            ):
                continue
            infos.append(file)
    return Location(filesystem, pattern, infos, root, named)


def _matches(names: Sequence[str], parts: Sequence[str]) -> bool:
    """Whether the pattern of `parts` matches the path of `names`. As in a shell, a hidden name is
    matched only by a part that begins like it."""
    if not parts:
        return not names
    first, *rest = parts
    if first == "**":
        depths = range(len(names) + 1)
        return any(_matches(names[d:], rest) and not _has_hidden(names[:d]) for d in depths)
    if not names or not fnmatchcase(names[0], first):
        return False
    is_named = first.startswith(names[0][:1]) or not _has_hidden(names[:1])
    return is_named and _matches(names[1:], rest)


def _has_hidden(names: Sequence[str]) -> bool:
    """Whether a part of the path is hidden, or a marker such as _SUCCESS."""
    return any(name.startswith((".", "_")) for name in names)


def _bare(path: str) -> str:
    """`path` without the ending that tells the compression."""
    for suffix in COMPRESSED:
        path = path.removesuffix(suffix)
    return path
