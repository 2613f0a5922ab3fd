"""The parent's side of math-verify: one child process, restarted when it is slow or dies.

math-verify may hang, eat all memory or crash, and uses SIGALRM, which works in a main thread only.
So it runs in `verifier_child.py`, started as a script: it imports neither torch nor Ray, and
nothing is forked from a process with their threads. The protocol over one socket pair is a line of
JSON to the child and one byte back; when either end dies the other reads end-of-file.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

logger = logging.getLogger(__name__)

_CHILD = Path(__file__).with_name("verifier_child.py")
_START_TIMEOUT_S = 120.0  # it imports sympy; half a second on an idle machine
_MEMORY_BYTES = 2 * 1024**3
_MAX_CHARS = 500


class Verifier:
    """Mathematical equality of two expressions, each decided within `timeout_s` seconds.

    The child starts with the first call. Any thread may call; calls run one at a time.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None

    @property
    def child_pid(self) -> int | None:
        """Process id of the child, None while there is none."""
        return self._process.pid if self._process is not None else None

    def verify(self, answer: str, reference: str) -> bool:
        """True if math-verify finds the two equal.

        False if not, if it takes longer than `timeout_s`, if it brings its process down, or if
        either is longer than 500 characters. RuntimeError if the child cannot be started at all.
        """
        if max(len(answer), len(reference)) > _MAX_CHARS:
            return False
        with self._lock:
            channel = self._ready_channel()
            request = json.dumps({"answer": answer, "reference": reference}) + "\n"
            try:
                return _exchange(channel, request.encode(), self._timeout_s) == b"1"
            except TimeoutError:
                logger.warning("math-verify took over %g s: counted as wrong", self._timeout_s)
            except OSError as error:
                logger.warning("math-verify's process died (%s): counted as wrong", error)
            self._stop(grace_s=0.0)
            return False

    def close(self) -> None:
        """End the child. A later `verify` starts a new one."""
        with self._lock:
            self._stop(grace_s=1.0)

    def _ready_channel(self) -> socket.socket:
        """The socket to a living child. One that died between two rows costs neither of them."""
        if self._process is not None and self._process.poll() is not None:
            self._stop(grace_s=0.0)
        if self._channel is not None:
            return self._channel
        try:
            return self._start()
        except OSError:
            self._stop(grace_s=0.0)
        try:  # once more: the first may have been killed from outside
            return self._start()
        except OSError as error:
            self._stop(grace_s=0.0)
            raise RuntimeError(
                f"cannot start math-verify's process ({error}); "
                f"to see why, run: {sys.executable} -c 'import math_verify'"
            ) from error

    def _start(self) -> socket.socket:
        self._channel, child_end = socket.socketpair()
        with child_end:
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(_CHILD), str(self._timeout_s), str(_MEMORY_BYTES)],
                stdin=child_end.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                # The child must find math-verify wherever this process did, zip and venv included.
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
        _exchange(self._channel, b"", _START_TIMEOUT_S)
        return self._channel

    def _stop(self, *, grace_s: float) -> None:
        process, channel = self._process, self._channel
        self._process = self._channel = None
        if channel is not None:
            channel.close()
        if process is not None:
            try:
                process.wait(grace_s)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _exchange(channel: socket.socket, request: bytes, timeout_s: float) -> bytes:
    """Send `request`, return the one byte that answers it. TimeoutError, or OSError if it died."""
    deadline_s = time.monotonic() + timeout_s
    channel.settimeout(timeout_s)
    channel.sendall(request)
    # A timeout of zero would make the socket non-blocking.
    channel.settimeout(max(deadline_s - time.monotonic(), 1e-3))
    reply = channel.recv(1)
    if not reply:
        raise ConnectionResetError("it closed the connection")
    return reply
