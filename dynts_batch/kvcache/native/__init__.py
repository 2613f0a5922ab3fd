"""C code for keys and values on a CPU, built by the machine's own C compiler at first use.

Each caller documents its function. Without a compiler, or for other types, torch does the same.
"""

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any, cast

import torch

from dynts_batch.kvcache.native.build import library

#: Floats that the C code takes at a time. head_dim must be a multiple.
VECTOR = 16
TYPES = {"p": ctypes.c_void_p, "l": ctypes.c_long, "f": ctypes.c_float, "d": ctypes.c_double}

_operations = torch.library.Library("dynts_batch", "FRAGMENT")


def can_run(source: str, dtype: torch.dtype, device: torch.device, head_dim: int) -> bool:
    """Whether the code in the file `source` takes such keys and values here: bfloat16 if its name
    says so, else float32. Builds it on the first call."""
    taken = torch.bfloat16 if source.endswith("_bf16.c") else torch.float32
    fits = dtype == taken and device.type == "cpu" and head_dim % VECTOR == 0
    return fits and library(source) is not None


@cache
def function(source: str, name: str, arguments: str) -> Callable[..., None]:
    """A function of the file `source`, which `can_run` has built. `arguments`: one letter of
    `TYPES` each."""
    built = library(source)
    assert built is not None, "ask can_run first"
    found = getattr(built, name)
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
