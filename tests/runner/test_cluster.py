"""Laws of reaching a cluster: what keeps Ray from starting is one line and the status of a broken-off run."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_run import write_config, write_problems

REPOSITORY = Path(__file__).parents[2]


def _start(folder: Path, prelude: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """jobs/reason.py in a process of its own, after `prelude`."""
    config = write_config(folder, write_problems(folder / "problems.jsonl", 3))
    code = f"{prelude}\nfrom dynts_batch.runner.reason import reason\nraise SystemExit(reason({str(config)!r}, []))"
    kept = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**kept, "PYTHONPATH": str(REPOSITORY), **environment},
        cwd=folder, capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip


def _assert_one_line(done: subprocess.CompletedProcess[str], words: str) -> None:
    assert done.returncode == 1, done.stderr
    opening, error = done.stderr.splitlines()
    assert opening.startswith(("starting", "resuming"))
    assert error.startswith("error: ")
    assert words in error
    assert error.endswith(
        ". What is done is in the run directory; the same command goes on from there."
    )


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_that_does_not_answer_is_told_at_once(tmp_path, scheme):
    """Ray tries for many minutes, and writes lines of its own meanwhile."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]  # free again below
    began_s = time.monotonic()
    address = f"{scheme}127.0.0.1:{port}"
    _assert_one_line(_start(tmp_path, RAY_ADDRESS=address), f"cannot use Ray at {address}: ")
    assert time.monotonic() - began_s < 60


@pytest.mark.parametrize("address", ["nonsense", "http://127.0.0.1:1"])
def test_an_address_that_is_none_is_told(tmp_path, address):
    _assert_one_line(_start(tmp_path, RAY_ADDRESS=address), f"cannot use Ray at {address}: ")


def test_a_cluster_of_another_release_is_told(cluster, tmp_path):
    done = _start(tmp_path, "import ray\nray.__version__ = '2.1.0'", RAY_ADDRESS=cluster)
    _assert_one_line(done, f"cannot use Ray at {cluster}: Version mismatch")


def test_a_machine_on_which_ray_does_not_start_is_told(tmp_path):
    """As where its folder for temporary files cannot be written."""
    (tmp_path / "file").write_text("")
    done = _start(tmp_path, RAY_TMPDIR=str(tmp_path / "file"))
    _assert_one_line(done, "cannot start Ray here: ")
