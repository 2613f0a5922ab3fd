"""Builds the C code with the machine's own compiler, and keeps what it built.

It lies in the user's cache folder, under a name made of all that it depends on. So machines that
share a home but no processor share no code either.
"""

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
        try:
            return _load(compiler, source, _cache_folder())
        except (OSError, RuntimeError):  # no home, no room, no right to write or to run code there
            with tempfile.TemporaryDirectory() as folder:
                return _load(compiler, source, Path(folder))
    except subprocess.CalledProcessError as error:
        log.warning("cannot build %s, doing without it: %s", source, error.stderr)
    except OSError as error:  # a temporary folder may forbid running code too
        log.warning("cannot load %s, doing without it: %s", source, error)
    return None


def _load(compiler: str, source: str, folder: Path) -> ctypes.CDLL:
    """Load it from `folder`, where it is built if it is not there.

    Raises: CalledProcessError if the compiler refuses it, OSError if the folder cannot be used.
    """
    target = folder / f"{Path(source).stem}-{_fingerprint(compiler)}.so"
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        # Processes that build it at the same time replace each other's whole file.
        with tempfile.TemporaryDirectory(dir=folder) as own:
            built = Path(own) / target.name
            _run(compiler, *FLAGS, str(FOLDER / source), "-o", str(built), "-lm")
            os.replace(built, target)
    return ctypes.CDLL(str(target))


@cache
def _fingerprint(compiler: str) -> str:
    """Of the sources, the flags, and the macros of compiler and processor."""
    macros = _run(compiler, "-march=native", "-dM", "-E", "-x", "c", os.devnull)
    files = [path.read_bytes() for path in sorted(FOLDER.glob("*.[ch]"))]
    parts = [repr(FLAGS).encode(), macros.encode(), *files]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:32]


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dynts_batch"


def _run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
