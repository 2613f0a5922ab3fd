"""A run as its user starts it, in a process of its own, whose worker and driver can be killed."""

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
import pyarrow.dataset as ds

REPOSITORY = Path(__file__).parents[3]


class JobProcess:
    """`jobs/reason.py CONFIG key=value ...`."""

    def __init__(
        self,
        config: Path,
        settings: Mapping[str, Any],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.run_dir = Path(settings["run.dir"])
        self._mark = uuid.uuid4().hex
        overrides = [f"{key}={value}" for key, value in settings.items()]
        self.process = subprocess.Popen(
            [sys.executable, str(REPOSITORY / "jobs" / "reason.py"), str(config), *overrides],
            env={
                **os.environ,
                "PYTHONPATH": str(REPOSITORY),
                "RAY_worker_niceness": "0",  # else the workers yield to whatever else runs here
                "DYNTS_TEST_JOB": self._mark,
                **(environment or {}),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def finish(self, *, expected_status: int = 0, timeout_s: float = 900.0) -> str:
        """What it printed until its end."""
        text, _ = self.process.communicate(timeout=timeout_s)
        assert self.process.returncode == expected_status, text
        return text

    def kill(self) -> None:
        """By SIGKILL, and wait until its workers are gone too."""
        workers = self.workers()
        self.process.kill()
        self.process.communicate()
        psutil.wait_procs(workers, timeout=60)
        assert not any(worker.is_running() for worker in workers)

    def assert_nothing_is_left(self, *, timeout_s: float = 60.0) -> None:
        """Of all that it started, on this machine."""
        _, alive = psutil.wait_procs(self._processes(), timeout=timeout_s)
        assert not alive

    def _processes(self) -> list[psutil.Process]:
        """Whoever inherited its environment, whoever their parents are now."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("DYNTS_TEST_JOB") == self._mark:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def wait_for(self, condition: Callable[[], Any], *, timeout_s: float = 300.0) -> Any:
        """`condition`'s first result that is true."""
        deadline_s = time.monotonic() + timeout_s
        while not (found := condition()):
            assert self.process.poll() is None, self.process.communicate()[0]
            assert time.monotonic() < deadline_s, "it did not come"
            time.sleep(0.05)
        return found

    def wait_for_shards(self, count: int, *, timeout_s: float = 300.0) -> None:
        self.wait_for(lambda: self.num_shards >= count, timeout_s=timeout_s)

    @property
    def num_shards(self) -> int:
        return len(list(self.run_dir.glob("rows/*.parquet")))

    def workers(self) -> list[psutil.Process]:
        """Those that are at work now."""
        found = []
        for child in psutil.Process(self.process.pid).children(recursive=True):
            try:
                if child.cmdline()[:1] and child.cmdline()[0].startswith("ray::WorkerActor"):
                    found.append(child)
            except psutil.Error:
                continue
        return found

    def signal_worker(self, number: signal.Signals) -> psutil.Process:
        (worker,) = self.workers()
        worker.send_signal(number)
        return worker


def rows_of(run_dir: Path, *columns: str) -> list[dict[str, Any]]:
    """Of all committed rows, by their ids."""
    table = ds.dataset(run_dir / "rows", format="parquet").to_table(
        ["request_id", "sample_index", *columns]
    )
    return sorted(table.to_pylist(), key=lambda row: (row["request_id"], row["sample_index"]))


def assert_every_row_once(rows: list[dict[str, Any]], num_rows: int) -> None:
    names = {(row["request_id"], row["sample_index"]) for row in rows}
    assert len(names) == len(rows) == num_rows
