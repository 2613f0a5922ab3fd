"""C code for keys and values on a CPU, built by the machine's own C compiler at first use.

Each caller documents its function. Without a compiler, or for other types, torch does the same.
"""

import ctypes
from collections.abc import Callable
from functools import cache, wraps
from typing import Any, cast

import torch

from dynts_batch.kvcache.native.build import library

#: Floats that the C code takes at a time. head_dim must be a multiple.
VECTOR = 16
#: Types of numbers of which C code takes one or both.
NUMBERS = (torch.float32, torch.bfloat16)
_ARGUMENTS = {"p": ctypes.c_void_p, "l": ctypes.c_long, "f": ctypes.c_float, "d": ctypes.c_double}

_operations = torch.library.Library("dynts_batch", "FRAGMENT")
#: The function behind each operation.
implementations: dict[Any, Callable[..., Any]] = {}


def can_run(source: str, dtype: torch.dtype, device: torch.device, head_dim: int = VECTOR) -> bool:
    """Whether the code in the file `source` takes such keys and values here: bfloat16 if its name
    says so, else float32. Builds it on the first call."""
    taken = torch.bfloat16 if source.endswith("_bf16.c") else torch.float32
    fits = dtype == taken and device.type == "cpu" and head_dim % VECTOR == 0
    return fits and library(source) is not None


def can_run_both(
    source: str, dtype: torch.dtype, device: torch.device, head_dim: int = VECTOR
) -> bool:
    """`can_run` for code that takes both `NUMBERS`, and is told which of them it gets."""
    return dtype in NUMBERS and can_run(source, torch.float32, device, head_dim)


def padded(num_floats: int) -> int:
    """Rounded up to a multiple of `VECTOR`."""
    return -(-num_floats // VECTOR) * VECTOR


@cache
def function(source: str, name: str, arguments: str) -> Callable[..., None]:
    """A function of the file `source`, which `can_run` has built. `arguments`: one letter of
    `_ARGUMENTS` each."""
    built = library(source)
    assert built is not None, "ask can_run first"
    found = getattr(built, name)
    found.restype, found.argtypes = None, [_ARGUMENTS[letter] for letter in arguments]
    return cast(Callable[..., None], found)


def operation(schema: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator: make the function a torch operation of that schema, so that a decode step can be
    recorded. It takes positional arguments, a tensor first.

    Where no TorchDispatchMode looks, plain tensors on a CPU go straight to the function: torch's
    way to it takes as long again. Others go that way, where torch refuses what C may not touch."""

    def define(function: Callable[..., Any]) -> Callable[..., Any]:
        name = _operations.define(schema)
        _operations.impl(name, function, "CPU")
        operation = getattr(torch.ops.dynts_batch, name).default
        implementations[operation] = function

        @wraps(function)
        def call(*arguments: Any) -> Any:
            first = arguments[0]
            is_plain = type(first) is torch.Tensor and first.is_cpu
            is_watched = torch._C._len_torch_dispatch_stack() > 0
            return (function if is_plain and not is_watched else operation)(*arguments)

        return call

    return define
