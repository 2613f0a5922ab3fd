"""The child's side of judging: a script, never imported. `verifier.py` has the protocol.

The child never outlives the parent. While it waits it reads end-of-file; while it computes, its
alarm kills it.
"""

import importlib
import logging
import resource
import signal
import socket
import sys
from collections.abc import Callable
from json import dumps, loads

_ORPHAN_GRACE_S = 1.0  # the parent's own timeout comes first


def main() -> None:
    wait_s, cpu_s = float(sys.argv[1]), float(sys.argv[2])
    memory_bytes, function_name = int(sys.argv[3]), sys.argv[4]
    logging.disable()
    # Ctrl-C reaches the whole process group. The parent decides what becomes of the row in flight.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The kernel's default action ends even a long computation inside one C call. A Python handler,
    # and so math-verify's own timeout, cannot.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    if memory_bytes:
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with socket.socket(fileno=sys.stdin.fileno()) as channel, channel.makefile() as requests:
        try:
            judge = _load(function_name)
        except Exception as error:  # noqa: BLE001  a user's module may raise anything
            channel.sendall(_line(error=f"{type(error).__name__}: {error}"))
            return
        channel.sendall(_line(verdict=None))
        for line in requests:
            signal.setitimer(signal.ITIMER_REAL, wait_s + _ORPHAN_GRACE_S)
            signal.setitimer(signal.ITIMER_PROF, cpu_s)  # the parent knows this end by its signal
            try:
                request = loads(line)
                reply = _line(verdict=_checked(judge(request["answer"], request["reference"])))
            except MemoryError:
                raise  # a process out of memory must not judge another row
            except Exception as error:  # noqa: BLE001  one row, not the run
                reply = _line(error=f"{type(error).__name__}: {error}")
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            signal.setitimer(signal.ITIMER_PROF, 0.0)
            channel.sendall(reply)


def _load(name: str) -> Callable[..., bool | None]:
    """The function of "module:function"; for "math-verify" our own, which asks it."""
    if name == "math-verify":
        from dynts_batch.grading.mathematics import (
            equal,
        )  # takes half a second, which belongs to no answer

        return equal
    module, _, attribute = name.partition(":")
    judge = getattr(importlib.import_module(module), attribute)
    if not callable(judge):
        raise TypeError(f"{name} is no function")
    return judge


def _checked(verdict: object) -> bool | None:
    if verdict is None:
        return None
    if type(verdict).__name__ in ("bool", "bool_"):  # numpy's too
        return bool(verdict)
    raise TypeError(f"a grader must return True, False or None, got {verdict!r:.80}")


def _line(**reply: object) -> bytes:
    return f"{dumps(reply)}\n".encode()


if __name__ == "__main__":
    main()
