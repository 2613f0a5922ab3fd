"""Runs a list of checks, each in its own process, and prints every command.

So any figure can be had again alone. The suite of a GPU needs the repository, because the tests are
not installed.
"""

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run_checks(checks: Mapping[str, Sequence[str]], at_once: int) -> int:
    """Run `checks`, `at_once` at a time; returns how many failed.

    Each key says what the check shows; the value is its arguments to Python.
    """
    failed = []
    with ThreadPoolExecutor(at_once) as pool:
        running = {
            pool.submit(_run, arguments): (what, arguments) for what, arguments in checks.items()
        }
        for done in as_completed(running):
            what, arguments = running[done]
            status, output, wall_s = done.result()
            print(
                f"\n== {what}\n$ python {' '.join(arguments)}\n{output}({wall_s:.0f} s)", flush=True
            )
            if status != 0:
                failed.append(what)
    print("\nfailed:", *(failed or ["nothing"]), sep="\n  ")
    return len(failed)


def _run(arguments: Sequence[str]) -> tuple[int, str, float]:
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        check=False,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    return done.returncode, done.stdout, time.monotonic() - started
