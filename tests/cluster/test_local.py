"""cluster/local.sh is a real cluster: the preflight passes on it,
and jobs are submitted to it from anywhere."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_run import make_config, stable_rows, write_config, write_problems
from local_run import finish_run

pytestmark = pytest.mark.ray

ROOT = Path(__file__).parents[2]
RAY = str(Path(sys.executable).parent / "ray")
# Else Ray asks for a token, as soon as an earlier run on this machine has left one.
_NO_TOKEN = {"RAY_AUTH_MODE": "disabled"}


@pytest.fixture(scope="module")
def jobs_address():
    """Where jobs are submitted to; the cluster has 2 nodes of 1 CPU."""
    process = subprocess.Popen(
        [str(ROOT / "cluster" / "local.sh"), "2", "1"],
        env={"PATH": f"{Path(RAY).parent}:/usr/bin:/bin", "HOME": "/tmp", **_NO_TOKEN},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    line = process.stdout.readline()
    yield re.search(r"jobs: (\S+)", line)[1], re.search(r"RAY_ADDRESS=(\S+)", line)[1]
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)


def _ray_job(*args, address, **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        [RAY, "job", args[0], "--address", address, *args[1:]],
        cwd="/",  # not where the code is
        env={**os.environ, **_NO_TOKEN},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        **options,
    )


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_submitted_run_that_is_stopped_resumes_by_submitting_it_again(tmp_path, jobs_address):
    address, _ = jobs_address
    calm = tmp_path / "calm"
    calm.mkdir()
    undisturbed = stable_rows(finish_run(make_config(calm, 300)).path)
    problems = write_problems(tmp_path / "problems.jsonl", 300)
    run = {"dir": str(tmp_path / "run"), "shard_rows": 10, "checkpoint_s": 0.5}
    workers = {"num_cpus": 0.5, "max": 2}
    model = {"name": "fake:step_s=0.2"}
    config = write_config(tmp_path, problems, model=model, run=run, workers=workers)
    from_clone = ["--working-dir", str(ROOT), "--", "python", "jobs/reason.py", str(config)]
    deadline_s = time.monotonic() + 300
    while True:
        first = _ray_job(
            "submit", "--no-wait", "--submission-id=first", *from_clone, address=address
        )
        # A cluster answers before it can take a job.
        if "No available agent" not in first.stderr or time.monotonic() > deadline_s:
            break
        time.sleep(2)
    assert first.returncode == 0, first.stderr
    while not list((tmp_path / "run" / "rows").glob("*")):
        assert time.monotonic() < deadline_s, _ray_job("logs", "first", address=address).stdout
        time.sleep(0.2)
    stopped = _ray_job("stop", "first", address=address)
    assert stopped.returncode == 0, stopped.stderr
    num_kept = len(list((tmp_path / "run" / "rows").glob("*")))
    assert 0 < num_kept < 30

    installed = ["--", "dynts-batch", "run", str(config), "model.name=fake"]
    second = _ray_job("submit", *installed, address=address)
    assert second.returncode == 0, second.stdout + second.stderr
    assert "resuming" in second.stdout + second.stderr
    assert stable_rows(tmp_path / "run") == undisturbed


@pytest.mark.long
@pytest.mark.timeout(300)
def test_the_preflight_finds_a_cluster_on_one_machine_fit(tmp_path, jobs_address):
    _, ray_address = jobs_address
    done = subprocess.run(
        [sys.executable, str(ROOT / "cluster" / "preflight.py"), str(tmp_path / "run")],
        env={
            "PATH": "/usr/bin:/bin",
            "RAY_ADDRESS": ray_address,
            "PYTHONPATH": str(ROOT),
            **_NO_TOKEN,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("yes") == 3
    assert not list((tmp_path / "run").iterdir())
