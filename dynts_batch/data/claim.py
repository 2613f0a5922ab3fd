"""A driver's claim on a run directory: one driver at a time, on any filesystem, from any machine.

    driver.json     who drives the run, and a count that grows every BEAT_S seconds; removed at the
                    end

No lock works on every store, so a claim is a file that its owner keeps writing. A driver that finds
one looks at its owner. If that is a dead process of this machine, the driver goes on at once. If
not, it watches the count: one that grows belongs to a driver at work, and one that stands still for
GONE_S to a driver that is gone. Clocks are never compared.

If two claim at the same moment, the last to write stays. The other finds out at its next beat. So
does a driver that was taken for gone and only slept.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import platform
import threading
import time
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from dynts_batch.data.files.storage import Storage
from dynts_batch.errors import RunDirError

logger = logging.getLogger(__name__)

BEAT_S = 5.0
GONE_S = 30.0
_POLL_S = 0.5
_FILE = "driver.json"


class Claim:
    """A context manager: in its block this process is the driver, unless it `is_lost`."""

    def __init__(self, path: str, storage: Storage) -> None:
        """`path` names the run directory in messages."""
        self._path, self._storage = path, storage
        self._me = {
            "driver": uuid.uuid4().hex,
            "host": platform.node(),
            "pid": os.getpid(),
            "machine": _machine(),
            "process_began": _began(os.getpid()),
            "since": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        self._gone: bytes | None = None
        self._taken_by: str | None = None

    @property
    def is_lost(self) -> bool:
        """Another driver has taken over."""
        return self._taken_by is not None

    def wait_until_free(self) -> None:
        """Return once nobody else drives the run: usually at once, and after GONE_S at the latest.

        Raises: RunDirError: another driver is at work.
        """
        found = self._storage.read(_FILE)
        deadline_s = None
        while not self._is_free(found):
            if deadline_s is None:
                deadline_s = time.monotonic() + GONE_S
                logger.warning(
                    "%s was driven by %s: watching for up to %g s whether it still is",
                    self._path, _name(found), GONE_S,
                )  # fmt: skip
            elif time.monotonic() >= deadline_s:
                self._gone = found
                return
            time.sleep(_POLL_S)
            before, found = found, self._storage.read(_FILE)
            if found not in (None, before):
                raise RunDirError(
                    f"{self._path} must have one driver at a time, got a second one while "
                    f"{_name(found)} is at work. Wait for its end or stop it; if it is killed, "
                    f"this command goes on {GONE_S:g} s later"
                )

    def check(self) -> None:
        """Raises: RunDirError: the claim `is_lost`."""
        if self.is_lost:
            raise RunDirError(
                f"{self._path} was taken over by {self._taken_by}, and this driver has stopped: "
                "a run has one at a time"
            )

    def __enter__(self) -> Self:
        self.wait_until_free()
        self._write(0)
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_over.set()
        self._thread.join(BEAT_S)
        try:
            if self._is_ours(self._storage.read(_FILE)):
                self._storage.delete(_FILE)
        except RunDirError as failure:  # others soon take this driver for gone
            logger.warning("left behind: %s", failure)

    def _beat(self) -> None:
        found: bytes | None = None
        for count in itertools.count(1):
            if self._is_over.wait(BEAT_S):
                return
            try:
                before, found = found, self._storage.read(_FILE)
                if found is not None and not self._is_ours(found):
                    if not _parse(found) and found != before:
                        continue  # half of another's claim, perhaps: not every store writes at once
                    self._taken_by = _name(found)
                    return
                self._write(count)
            except RunDirError as error:
                logger.warning("no heartbeat: %s", error)

    def _write(self, count: int) -> None:
        self._storage.write_json(_FILE, {**self._me, "heartbeats": count})

    def _is_ours(self, found: bytes | None) -> bool:
        return _parse(found).get("driver") == self._me["driver"]

    def _is_free(self, found: bytes | None) -> bool:
        """Whether there is no claim, or one of a process that is known to be gone."""
        owner = _parse(found)
        is_dead = (
            owner.get("machine") == self._me["machine"]
            and _began(owner.get("pid")) != owner.get("process_began")
        )  # fmt: skip
        return found in (None, self._gone) or is_dead


def _parse(found: bytes | None) -> dict[str, Any]:
    """The claim's content. Empty if it cannot be read; its bytes alone then tell owners apart."""
    try:
        owner = json.loads(found or b"{}")
    except ValueError:
        return {}
    return owner if isinstance(owner, dict) else {}


def _name(found: bytes | None) -> str:
    owner = _parse(found)
    return f"process {owner.get('pid')} on {owner.get('host')} (since {owner.get('since')})"


def _machine() -> str:
    """Names the place in which process ids mean the same.

    Host names may be given twice, and a container counts its own processes.
    """
    return " ".join([platform.node(), _read("/proc/sys/kernel/random/boot_id"), _pid_namespace()])


def _began(pid: Any) -> str | None:
    """When a process of this machine began, in the kernel's ticks, because ids are used again.

    None if the process is gone or a zombie, or if there is no /proc to tell.
    """
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return None if not fields or fields[0] in "ZX" else fields[19]


def _pid_namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
