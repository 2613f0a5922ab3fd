"""Memory that ran out: how to recognise such an error, and how to free what is unused.

Needs no torch until there is an error.
"""

import ctypes
import gc
import sys


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that memory ran out, on the device or the host."""
    # torch has a class for its GPU allocator, and bare RuntimeErrors for the rest.
    names = {cls.__name__ for cls in type(error).__mro__}
    text = str(error)
    return bool(names & {"MemoryError", "OutOfMemoryError"}) or any(
        words in text for words in ("can't allocate memory", "out of memory", "ALLOC_FAILED")
    )


def free_memory() -> None:
    """Free what nothing refers to any more, for the GPU's other processes too."""
    gc.collect()
    if "torch" in sys.modules:
        import torch

        torch.cuda.empty_cache()


def return_memory() -> None:
    """Return freed memory to the system at once. glibc keeps what other threads allocated."""
    if (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)
