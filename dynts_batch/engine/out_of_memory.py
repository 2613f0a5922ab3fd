"""Memory that ran out: how to recognise such an error, and how to free what is unused, or keep it.

Needs no torch until there is an error.
"""

import ctypes
import gc
import sys

#: Options of glibc's mallopt: blocks that are the system's own, and freed bytes that are kept.
_M_MMAP_MAX, _M_TRIM_THRESHOLD = -4, -1


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that memory ran out, on the device or the host."""
    # torch has a class for its GPU allocator, and bare RuntimeErrors for the rest.
    names = {cls.__name__ for cls in type(error).__mro__}
    text = str(error)
    return bool(names & {"MemoryError", "OutOfMemoryError"}) or any(
        words in text for words in ("can't allocate memory", "out of memory", "ALLOC_FAILED")
    )


def free_memory() -> None:
    """Free what nothing refers to any more, for other processes too."""
    gc.collect()
    return_memory()
    if "torch" in sys.modules:
        import torch

        torch.cuda.empty_cache()


def return_memory() -> None:
    """Return freed memory to the system at once. glibc keeps what other threads allocated."""
    if (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)


def keep_memory() -> None:
    """Let the main thread of this process keep what it frees, for what it allocates next, until
    `return_memory` or more than 1 GiB is free at the end of its heap.

    glibc returns blocks of more than 32 MiB at once, and the system clears every page of the next
    one: a quarter of the time that prompts take on a CPU. Other threads' blocks are still returned.
    """
    if (set_option := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        set_option(_M_MMAP_MAX, 0)
        set_option(_M_TRIM_THRESHOLD, 2**30)
