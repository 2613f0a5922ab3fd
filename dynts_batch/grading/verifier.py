"""The parent's side of judging: one child process, restarted when it is slow or dies.

math-verify may hang, eat all memory or crash. It also uses SIGALRM, which works only in a main
thread. A user's grader may do anything. So both run in `verifier_child.py`, started as a script: it
imports neither torch nor Ray, and no process with their threads is forked.

The protocol runs over one socket pair: a line of JSON to the child, and one back. If either end
dies, the other reads end-of-file.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

logger = logging.getLogger(__name__)

MATH_VERIFY = "math-verify"

_CHILD = Path(__file__).with_name("verifier_child.py")
_START_TIMEOUT_S = 120.0  # it imports sympy; half a second on an idle machine
# A comparison has its time on the CPU, so that a busy machine turns no right answer into a wrong
# one. A child that does not get on at all is given up after so many times that.
_MOST_WAITING = 20
_MEMORY_BYTES = 2 * 1024**3
_MAX_CHARS = 500


class JudgeError(RuntimeError):
    """The function that judges cannot be loaded. The message is what its import raised."""


class Verifier:
    """Whether an answer equals its reference, each pair decided within `timeout_s` seconds.

    `function` is "math-verify" or "module:function". It is called with an answer and a reference,
    and returns True, False or None for "no judgement". The child starts with the first call. Any
    thread may call; calls run one at a time.

    The seconds are CPU time of math-verify, and time of a user's function, which may be waiting.
    """

    def __init__(self, timeout_s: float, function: str = MATH_VERIFY) -> None:
        self._timeout_s = timeout_s
        self._function = function
        self._is_math = function == MATH_VERIFY
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None

    @property
    def child_pid(self) -> int | None:
        """Process id of the child; None if there is none."""
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        """Start the child now. Raises: JudgeError, RuntimeError; see `verify`."""
        with self._lock:
            self._ready_channel()

    def verify(self, answer: str | None, reference: str) -> bool | None:
        """The function's verdict on the two.

        False also if it takes longer than `timeout_s` or brings its process down. math-verify also
        gives False if it raises, or if either text is longer than 500 characters. None also if a
        user's function raises, which is logged.

        Raises:
            JudgeError: the function cannot be loaded.
            RuntimeError: the child cannot be started at all.
        """
        if self._is_math and max(len(answer or ""), len(reference)) > _MAX_CHARS:
            return False
        with self._lock:
            channel = self._ready_channel()
            request = json.dumps({"answer": answer, "reference": reference}) + "\n"
            try:
                return self._verdict(_exchange(channel, request.encode(), self._longest_wait_s))
            except TimeoutError:
                why = f" took over {self._longest_wait_s:g} s"
            except OSError as error:
                is_spent = self._exit_status() == -signal.SIGPROF
                spent = f" took over {self._timeout_s:g} s of CPU time"
                why = spent if is_spent else f"'s process died ({error})"
            logger.warning("%s%s: counted as wrong", self._function, why)
            self._stop(grace_s=0.0)
            return False

    def close(self) -> None:
        """End the child. A later `verify` starts a new one."""
        with self._lock:
            self._stop(grace_s=1.0)

    @property
    def _longest_wait_s(self) -> float:
        return self._timeout_s * (_MOST_WAITING if self._is_math else 1)

    def _exit_status(self) -> int | None:
        """Of the child, which has closed its end of the channel. None: it goes on all the same."""
        assert self._process is not None
        try:
            return self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            return None

    def _verdict(self, reply: dict[str, object]) -> bool | None:
        if "error" not in reply:
            return reply["verdict"]  # type: ignore[return-value]  # the child checks it
        if self._is_math:
            return False
        logger.warning("%s raised %s: the row is not judged", self._function, reply["error"])
        return None

    def _ready_channel(self) -> socket.socket:
        """The socket to a living child. A child that died between two rows costs neither row."""
        if self._process is not None and self._process.poll() is not None:
            self._stop(grace_s=0.0)
        if self._channel is not None:
            return self._channel
        try:
            return self._start()
        except OSError:
            self._stop(grace_s=0.0)
        try:  # once more: something outside may have killed the first
            return self._start()
        except OSError as error:
            self._stop(grace_s=0.0)
            module = "math_verify" if self._is_math else self._function.partition(":")[0]
            raise RuntimeError(
                f"cannot start the process of {self._function} ({error});"
                f" to see why, run: {sys.executable} -c 'import {module}'"
            ) from error

    def _start(self) -> socket.socket:
        self._channel, child_end = socket.socketpair()
        cpu_s, memory_bytes = (self._timeout_s, _MEMORY_BYTES) if self._is_math else (0.0, 0)
        with child_end:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-P", str(_CHILD)),
                    *(str(self._longest_wait_s), str(cpu_s), str(memory_bytes), self._function),
                ],
                stdin=child_end.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                # The child must find modules wherever this process does, zip and venv included,
                # and a user's module in the folder that the job was started from. The hash seed
                # fixes the order of sympy's sets, on which its verdicts may depend.
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join([*filter(None, sys.path), "."]),
                    "PYTHONHASHSEED": "0",
                },
            )
        reply = _exchange(self._channel, b"", _START_TIMEOUT_S)
        if "error" in reply:
            self._stop(grace_s=1.0)
            raise JudgeError(str(reply["error"]))
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


def _exchange(channel: socket.socket, request: bytes, timeout_s: float) -> dict[str, object]:
    """Send `request`, return the line that answers it. TimeoutError; OSError if the child died."""
    deadline_s = time.monotonic() + timeout_s
    channel.settimeout(timeout_s)
    channel.sendall(request)
    reply = b""
    while not reply.endswith(b"\n"):
        # A timeout of zero would make the socket non-blocking.
        channel.settimeout(max(deadline_s - time.monotonic(), 1e-3))
        received = channel.recv(1 << 16)
        if not received:
            raise ConnectionResetError("it closed the connection")
        reply += received
    return json.loads(reply)
