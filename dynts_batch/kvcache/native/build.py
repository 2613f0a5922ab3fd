"""Builds the C code with the machine's own compiler, and keeps it for the processes to come.

It lies in the user's cache folder, `~/.cache/dynts_batch`, under a name made of all that it depends
on. So machines that share a home but no processor share no code either. A folder that cannot be
used costs time, and nothing else.
"""

import contextlib
import ctypes
import hashlib
import logging
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent
FLAGS = (
    "-O3",
    "-march=native",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fopenmp",
    "-shared",
    "-fPIC",
    "-Wno-psabi",  # vectors wider than the processor's have no fixed ABI, and none leaves a file
)

log = logging.getLogger(__name__)


@cache
def library(source: str) -> ctypes.CDLL | None:
    """The code of the file `source` of this folder. None, and a warning: it cannot be built."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        log.warning(
            "no C compiler (cc or gcc) is on this machine: torch decodes on its CPU instead, at"
            " about half the speed. Install one, for example with apt-get install gcc libc6-dev"
        )
        return None
    try:
        kept = _cache_folder() / f"{Path(source).stem}-{_fingerprint(compiler)}.so"
        if (found := _open(kept)) is not None:
            return found
        with tempfile.TemporaryDirectory() as folder:
            built = Path(folder) / kept.name
            _run(compiler, *FLAGS, str(FOLDER / source), "-o", str(built), "-lm")
            _keep(built, kept)
            return ctypes.CDLL(str(built))
    except subprocess.CalledProcessError as error:
        log.warning("cannot build %s, doing without it: %s", source, error.stderr)
    except OSError as error:  # a temporary folder may forbid running code too
        log.warning("cannot load %s, doing without it: %s", source, error)
    return None


def _open(kept: Path) -> ctypes.CDLL | None:
    """What the cache holds. None: nothing; what cannot be loaded is removed."""
    if not kept.exists():
        return None
    try:
        return ctypes.CDLL(str(kept))
    except OSError:  # damaged, or where no code may run
        with contextlib.suppress(OSError):
            kept.unlink()
        return None


def _keep(built: Path, kept: Path) -> None:
    """Copy it to the cache if that is possible."""
    with contextlib.suppress(OSError):
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=kept.parent) as file:
            file.write(built.read_bytes())
            file.flush()
            os.fsync(file.fileno())  # a name never stands for half a file, even after a power cut
            # Unlike a replacement it leaves alone what another process has put there and loaded.
            os.link(file.name, kept)


@cache
def _fingerprint(compiler: str) -> str:
    """Of the sources, the flags, and the macros of compiler and processor."""
    macros = _run(compiler, "-march=native", "-dM", "-E", "-x", "c", os.devnull)
    files = [path.read_bytes() for path in sorted(FOLDER.glob("*.[ch]"))]
    parts = [repr(FLAGS).encode(), macros.encode(), *files]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:32]


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "dynts_batch"


def _run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
