"""Headless Chromium over its debugging pipe:
opens a file and tells what the page asked for and complained about.

No driver and no package: the protocol is JSON with a zero byte after each message,
over file descriptors 3 and 4.
"""

import base64
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")

_TIMEOUT_S = 60.0

#: Where Chromium is, or None.
PATH = next(filter(None, map(shutil.which, NAMES)), None)

#: Moves two pipes to where Chromium looks for them, past each other if need be, and becomes it.
_LAUNCHER = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(fd), fcntl.F_DUPFD, 10) for fd in sys.argv[1:3]]
for wanted, end in enumerate(ends, 3):
    os.dup2(end, wanted)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Page:
    """One open page, and all that it said."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to, self._from = to_browser, from_browser
        self._buffer = b""
        self._session: str | None = None
        self._last_id = 0
        self.events: list[dict[str, Any]] = []

    def open(self, path: Path) -> None:
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Page.navigate", url=path.as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self._receive()
        self.evaluate("new Promise(done => requestAnimationFrame(() => setTimeout(done, 50)))")

    def emulate(
        self, *, width: int, height: int = 900, dark: bool = False, scale: float = 1.0
    ) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=scale, mobile=width < 600,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def evaluate(self, expression: str) -> Any:
        found = self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def screenshot(self, path: Path, *, whole: bool = True) -> None:
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))

    @property
    def complaints(self) -> list[Any]:
        """Console messages, exceptions and log entries."""
        methods = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        return [event["params"] for event in self.events if event["method"] in methods]

    @property
    def requests(self) -> list[str]:
        """URLs that the page asked for."""
        sent = [e["params"] for e in self.events if e["method"] == "Network.requestWillBeSent"]
        return [params["request"]["url"] for params in sent]

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self._last_id += 1
        message: dict[str, Any] = {"id": self._last_id, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            reply = self._receive()
            if reply.get("id") == message["id"]:
                assert "error" not in reply, reply
                return reply["result"]

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            assert select.select([self._from], [], [], _TIMEOUT_S)[0], "Chromium does not answer"
            received = os.read(self._from, 1 << 20)
            assert received, "Chromium is gone"
            self._buffer += received
        message, _, self._buffer = self._buffer.partition(b"\0")
        found = json.loads(message)
        if "method" in found:
            self.events.append(found)
        return found


@contextmanager
def open_page(path: Path) -> Iterator[Page]:
    """`path` in a fresh Chromium that ends with the block."""
    assert PATH is not None
    to_browser, from_browser = os.pipe(), os.pipe()

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [
            PATH, "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe",
            "--no-first-run", "--disable-dev-shm-usage", "--disable-background-networking",
            f"--user-data-dir={profile}",
        ]  # fmt: skip
        theirs = to_browser[0], from_browser[1]
        process = subprocess.Popen(
            [sys.executable, "-c", _LAUNCHER, *map(str, theirs), *command],
            pass_fds=theirs,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # its helpers end with it
        )
        for fd in theirs:  # else its death would not be noticed
            os.close(fd)
        try:
            page = Page(to_browser[1], from_browser[0])
            page.open(path)
            yield page
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            os.close(to_browser[1])
            os.close(from_browser[0])
