"""What can be known of the cluster files where there is no cluster. They have the form asked for,
and name what exists."""

import json
import os
import re
import shlex
import signal
import stat
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import jsonschema
import pytest
import ray.autoscaler
import yaml
from ray.scripts.scripts import start as ray_start

from dynts_batch.config_file import load_config

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
AWS = yaml.safe_load((CLUSTER / "aws.yaml").read_text())
RAYJOB = yaml.safe_load((CLUSTER / "rayjob.yaml").read_text())


def _check_job(command: str) -> None:
    """`command` names a job that exists, and keys that the configuration has."""
    words = shlex.split(command)
    script = words[words.index("python") + 1].removeprefix("/home/ray/dynts-batch/")
    assert (ROOT / script).is_file(), script
    load_config(str(ROOT / "configs" / "quickstart.yaml"), [w for w in words if "=" in w])


def test_ray_up_accepts_the_aws_file_and_its_commands():
    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    jsonschema.validate(AWS, schema)
    for command in AWS["head_start_ray_commands"] + AWS["worker_start_ray_commands"]:
        if command.startswith("ray start"):
            ray_start.make_context("start", shlex.split(command)[2:]).close()
    spot = AWS["available_node_types"]["spot_gpu"]
    assert spot["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert spot["max_workers"] <= AWS["max_workers"]
    assert AWS["available_node_types"][AWS["head_node_type"]]["resources"]["GPU"] == 0


def test_the_ray_job_names_what_it_mounts_and_runs():
    spec = RAYJOB["spec"]
    _check_job(spec["entrypoint"].replace("bash cluster/rayjob.sh", "python jobs/reason.py"))
    cluster = spec["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for group in groups:
        pod = group["template"]["spec"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
            assert container["resources"]["limits"].keys() >= {"cpu", "memory"}
        ray_start.make_context(
            "start", [f"--{k}={v}" for k, v in group["rayStartParams"].items()]
        ).close()
    (workers,) = cluster["workerGroupSpecs"]
    assert workers["minReplicas"] <= workers["replicas"] <= workers["maxReplicas"]
    assert f"workers.max={workers['maxReplicas']}" in spec["entrypoint"]


@pytest.mark.parametrize(
    ("status", "of_the_job"), [(0, 0), (1, 1), (2, 2), (3, 0), (4, 0), (143, 143)]
)
def test_a_ray_job_is_not_started_again_once_its_run_has_ended(tmp_path, status, of_the_job):
    """At its cap a run ended with 4, and KubeRay gave it the cap three times more."""
    assert RAYJOB["spec"]["entrypoint"].startswith("bash cluster/rayjob.sh ")
    _stub(tmp_path, "python", f'echo "$*"; exit {status}')
    done = subprocess.run(
        ["bash", str(CLUSTER / "rayjob.sh"), "config.yaml", "run.dir=/a b"],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "RETRY_S": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == of_the_job
    num_starts = 2 if status == 2 else 1
    assert done.stdout == "jobs/reason.py config.yaml run.dir=/a b\n" * num_starts


def test_a_ray_job_outwaits_the_driver_of_a_cluster_that_goes_away(tmp_path):
    """Each of KubeRay's few tries ended at once with "one driver at a time"."""
    seen = tmp_path / "seen"
    _stub(tmp_path, "python", f"[[ -e {seen} ]] && exit 0; touch {seen}; exit 2")
    _stub(tmp_path, "sleep", f"echo $1 > {tmp_path}/slept")
    done = subprocess.run(
        ["bash", str(CLUSTER / "rayjob.sh"), "config.yaml"],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        check=False,
    )
    assert done.returncode == 0
    assert (tmp_path / "slept").read_text() == "90\n"


def test_a_ray_job_that_is_stopped_while_it_waits_starts_nothing_more(tmp_path):
    starts = tmp_path / "starts"
    _stub(tmp_path, "python", f"echo start >> {starts}; exit 2")
    process = subprocess.Popen(
        ["bash", str(CLUSTER / "rayjob.sh"), "config.yaml"],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "RETRY_S": "30"},
        start_new_session=True,
    )
    while not starts.exists():
        time.sleep(0.05)
    time.sleep(0.3)
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(timeout=20) == 143
    assert starts.read_text() == "start\n"


def test_the_image_copies_what_exists_and_all_that_the_wheel_needs():
    lines = (CLUSTER / "Dockerfile").read_text().splitlines()
    copied = [w for line in lines if line.startswith("COPY") for w in line.split()[2:-1]]
    assert all((ROOT / path).exists() for path in copied)
    assert {"pyproject.toml", "README.md", "dynts_batch", "configs", "jobs", "cluster"} <= set(
        copied
    )


def test_the_image_keeps_its_base_images_ray_and_torch():
    """Unconstrained, pip put the newest Ray over that of the cluster,
    and a torch over that of the image's CUDA."""
    text = (CLUSTER / "Dockerfile").read_text().replace("\\\n", "")
    (listing, file, installation) = re.search(
        r'^RUN python -c "(.*)" > (\S+) .*(pip install .*)$', text, re.MULTILINE
    ).groups()
    kept = subprocess.run(
        [sys.executable, "-c", listing], capture_output=True, text=True, check=True
    ).stdout.split()
    assert {f"ray=={version('ray')}", f"torch=={version('torch')}"} <= set(kept)
    assert f"--constraint {file}" in installation
    assert text.count("pip install") == 1


@pytest.mark.parametrize("script", ["slurm.sh", "local.sh", "rayjob.sh"])
def test_the_shell_scripts_parse(script):
    subprocess.run(["bash", "-n", str(CLUSTER / script)], check=True)


def _stub(folder: Path, name: str, body: str) -> None:
    path = folder / name
    path.write_text(f"#!/usr/bin/env bash\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def allocation(tmp_path):
    """An allocation of two nodes. Slurm, Ray and dynts-batch only write down what they are told."""
    log = tmp_path / "log"
    scontrol = f'[[ $1 == requeue ]] && echo "requeued $2" >> {log} || printf "node-a\\nnode-b\\n"'
    _stub(tmp_path, "scontrol", scontrol)
    srun = "node=; while [[ $1 == --* ]]; do [[ $1 == --nodelist=* ]] && node=${1#*=}; shift; done"
    told = f'echo "srun $node $*" >> {log}; echo "$SRUN_CPUS_PER_TASK" >> {log}.cpus'
    _stub(tmp_path, "srun", f'{srun}; {told}; exec "$@"')
    _stub(tmp_path, "hostname", "echo 10.0.0.1")
    head = '[[ $2 == --head && -n "${STUB_HEAD:-}" ]] && exec $STUB_HEAD'
    _stub(tmp_path, "ray", f"{head}; [[ $1 == start ]] && exec sleep 20; exit ${{STUB_HEALTH:-0}}")
    trap = f"trap 'echo stored >> {log}; exit 143' TERM"
    _stub(
        tmp_path,
        "dynts-batch",
        f'{trap}; echo "dynts-batch $*" >> {log}; sleep "${{STUB_S}}" & wait; exit'
        f' "${{STUB_STATUS:-0}}"',
    )
    environment = {
        **os.environ,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "SLURM_JOB_NODELIST": "node-[a-b]",
        "SLURM_JOB_ID": "4711",
        "SLURM_GPUS_ON_NODE": "8",
        "SLURM_CPUS_PER_TASK": "64",
    }
    return log, environment


def _sbatch(environment, stub_s: str, **options) -> subprocess.Popen:
    return subprocess.Popen(
        ["bash", str(CLUSTER / "slurm.sh"), "configs/quickstart.yaml", "run.dir=/shared/r"],
        env={**environment, "STUB_S": stub_s},
        start_new_session=True,
        **options,
    )


def test_slurm_starts_a_node_each_and_one_run_for_all(allocation):
    log, environment = allocation
    process = _sbatch(environment, "3")  # seconds, in which the second node's step has begun too
    assert process.wait(timeout=60) == 0
    os.killpg(process.pid, signal.SIGKILL)
    lines = log.read_text().splitlines()
    starts = {line.split()[1]: line for line in lines if "ray start" in line}
    assert "--head" in starts["node-a"]
    assert "--address=10.0.0.1:24711" in starts["node-b"]
    (run,) = [line for line in lines if line.startswith("dynts-batch")]
    assert run.endswith("configs/quickstart.yaml run.dir=/shared/r workers.max=16")
    _check_job(run.replace("dynts-batch run", "python jobs/reason.py"))
    assert set((log.parent / "log.cpus").read_text().split()) == {"64"}, "steps inherit no cores"


@pytest.mark.parametrize(
    ("stubs", "message"),
    [
        ({"STUB_HEAD": "false"}, "ray start --head ended on node-a"),
        ({"RAY_START_S": "1"}, "no Ray at 10.0.0.1:24711 after 1 s"),
    ],
)
def test_slurm_gives_its_nodes_back_when_ray_does_not_start(allocation, stubs, message):
    """It asked for the head's health for ever, with all GPUs idle until the time limit."""
    log, environment = allocation
    began_s = time.monotonic()
    process = _sbatch(environment | {"STUB_HEALTH": "1"} | stubs, "0", stderr=subprocess.PIPE)
    assert process.wait(timeout=60) == 1
    os.killpg(process.pid, signal.SIGKILL)
    assert time.monotonic() - began_s < 20
    assert message in process.communicate()[1].decode()
    assert "dynts-batch" not in log.read_text()


def test_slurms_notice_reaches_the_run_and_its_status_is_the_jobs(allocation):
    log, environment = allocation
    process = _sbatch(environment, "30")
    while "dynts-batch" not in (log.read_text() if log.exists() else ""):
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(timeout=30) == 143
    os.killpg(process.pid, signal.SIGKILL)
    assert log.read_text().splitlines()[-2:] == ["stored", "requeued 4711"]


@pytest.mark.parametrize(
    ("status", "restarts", "is_requeued"),
    [
        ("1", "0", 1),
        ("1", "9", 0),
        ("2", "0", 0),
        *(pytest.param(status, "0", 0, marks=pytest.mark.long) for status in ("0", "3", "4")),
    ],
)
def test_slurm_starts_a_run_again_that_broke_off_and_no_other(
    allocation, status, restarts, is_requeued
):
    """One with wrong settings would end in the same way each time."""
    log, environment = allocation
    process = _sbatch(environment | {"STUB_STATUS": status, "SLURM_RESTART_COUNT": restarts}, "0")
    assert process.wait(timeout=60) == int(status)
    os.killpg(process.pid, signal.SIGKILL)
    assert log.read_text().count("requeued 4711") == is_requeued


def test_preflight_names_every_node_that_does_not_fit():
    sys.path.insert(0, str(CLUSTER))
    try:
        from preflight import _PACKAGES, problems
    finally:
        sys.path.remove(str(CLUSTER))
    good = {"host": "a", "python": "3.11.7", "gpus": ["H100"], "ray_gpus": 1.0}
    good |= {"sees_run_dir": "yes"} | dict.fromkeys(_PACKAGES, "1")
    assert problems([good, good], num_gpus=2) == []
    bad = good | {"host": "b", "torch": "2", "gpus": [], "sees_run_dir": "no: not mounted"}
    assert problems([good, bad], num_gpus=3) == [
        "torch must be the same on all nodes, got 1, 2",
        "b does not see the run directory: no: not mounted",
        "b offers 1 GPUs to Ray, and its driver sees 0",
        "the cluster must have 3 GPUs, got 2",
    ]
