"""C code for keys and values on a CPU, built by the machine's own C compiler at first use.

Owns how it is built; each caller documents its function. Without a compiler, or for other types,
torch does the same.
"""

import ctypes
import logging
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, cast

import torch

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
#: Floats that the C code takes at a time. head_dim must be a multiple.
VECTOR = 16
TYPES = {"p": ctypes.c_void_p, "l": ctypes.c_long, "f": ctypes.c_float, "d": ctypes.c_double}

log = logging.getLogger(__name__)
_operations = torch.library.Library("dynts_batch", "FRAGMENT")


def can_run(source: str, dtype: torch.dtype, device: torch.device, head_dim: int) -> bool:
    """Whether the code in the file `source` takes such keys and values here: bfloat16 if its name
    says so, else float32. Builds it on the first call."""
    taken = torch.bfloat16 if source.endswith("_bf16.c") else torch.float32
    fits = dtype == taken and device.type == "cpu" and head_dim % VECTOR == 0
    return fits and _library(source) is not None


@cache
def function(source: str, name: str, arguments: str) -> Callable[..., None]:
    """A function of the file `source`, which `can_run` has built. `arguments`: one letter of
    `TYPES` each."""
    library = _library(source)
    assert library is not None, "ask can_run first"
    found = getattr(library, name)
    found.restype, found.argtypes = None, [TYPES[letter] for letter in arguments]
    return cast(Callable[..., None], found)


def operation(schema: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator: make the function a torch operation of that schema, so that a decode step can be
    recorded."""

    def define(function: Callable[..., Any]) -> Callable[..., Any]:
        name = _operations.define(schema)
        _operations.impl(name, function, "CPU")
        return cast(Callable[..., Any], getattr(torch.ops.dynts_batch, name))

    return define


@cache
def _library(source: str) -> ctypes.CDLL | None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        log.warning(
            "no C compiler (cc or gcc) is on this machine: torch decodes on its CPU instead, at"
            " about half the speed. Install one, for example with apt-get install gcc libc6-dev"
        )
        return None
    # Built anew by every process: machines that share a disk may have different processors.
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "native.so"
        built = subprocess.run(
            [compiler, *FLAGS, str(FOLDER / source), "-o", str(target), "-lm"],
            capture_output=True,
            text=True,
            check=False,
        )
        if built.returncode != 0:
            log.warning("cannot build %s, doing without it: %s", source, built.stderr)
            return None
        try:
            return ctypes.CDLL(str(target))
        except OSError as error:  # a temporary folder may forbid running code
            log.warning("cannot load %s, doing without it: %s", source, error)
            return None
