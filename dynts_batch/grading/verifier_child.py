"""The child's side of math-verify: a script, never imported; see `verifier.py` for the protocol.

Nothing outlives the parent: waiting, the child reads end-of-file; computing, its alarm kills it.
"""

import logging
import resource
import signal
import socket
import sys
from json import loads

from math_verify import parse, verify

_ORPHAN_GRACE_S = 1.0  # the parent's own timeout comes first


def main() -> None:
    timeout_s, memory_bytes = float(sys.argv[1]), int(sys.argv[2])
    logging.disable()
    # Ctrl-C reaches the whole process group; the parent decides what becomes of the row in flight.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The default action is the kernel's: it ends even a long computation inside one C call, which a
    # Python handler, and so math-verify's own timeout, cannot.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with socket.socket(fileno=sys.stdin.fileno()) as channel, channel.makefile() as requests:
        channel.sendall(b"r")
        for line in requests:
            signal.setitimer(signal.ITIMER_REAL, timeout_s + _ORPHAN_GRACE_S)
            equal = _equal(**loads(line))
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            channel.sendall(b"1" if equal else b"0")


def _equal(answer: str, reference: str) -> bool:
    # Boxed, because that is how math-verify reads LaTeX and plain text alike from end to end.
    gold, target = (
        parse(rf"\boxed{{{text}}}", parsing_timeout=None) for text in (reference, answer)
    )
    return bool(verify(gold, target, timeout_seconds=None))


if __name__ == "__main__":
    main()
