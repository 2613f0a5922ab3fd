"""Laws of what a run asks a cluster for: a model that is to be on a GPU
never lands on a CPU unasked."""

from pathlib import Path

import pytest

from dynts_batch.config import Config, ModelConfig, WorkersConfig
from dynts_batch.config_file import load_config
from dynts_batch.errors import ConfigError
from dynts_batch.runner.cluster import resources_on

CONFIGS = Path(__file__).parents[2] / "configs"

#: A cluster whose only node is a head without room for workers,
#: as in cluster/aws.yaml before the first one joins.
EMPTY = {"CPU": 0.0, "memory": 1e9}
CPUS = {"CPU": 8.0}
GPUS = {"CPU": 8.0, "GPU": 2.0}


def _num_gpus(total, device, num_gpus=None, *, is_local=False) -> float:
    workers = WorkersConfig(max=16, num_gpus=num_gpus)
    config = Config(model=ModelConfig(device=device), workers=workers)
    return resources_on(total, config, is_local=is_local).num_gpus


@pytest.mark.parametrize("total", [EMPTY, CPUS, GPUS])
def test_cuda_asks_for_a_gpu_whatever_the_cluster_has_now(total):
    assert _num_gpus(total, "cuda") == 1
    assert _num_gpus(total, "cuda", 0.5) == 0.5


def test_cuda_is_refused_on_a_machine_without_a_gpu():
    with pytest.raises(ConfigError, match=r"workers\.min must fit .* it has 8 CPU and 0 GPU"):
        _num_gpus(CPUS, "cuda", is_local=True)


def test_auto_takes_what_the_cluster_has():
    assert (_num_gpus(CPUS, "auto"), _num_gpus(GPUS, "auto"), _num_gpus(GPUS, "cpu")) == (0, 1, 0)


def test_a_cluster_that_starts_from_nothing_does_not_decide_for_cpus():
    """Its GPU nodes were asked for CPUs, and a large model ran on those."""
    with pytest.raises(
        ConfigError, match=r"workers\.num_gpus must be set on a cluster .* got null"
    ):
        _num_gpus(EMPTY, "auto")
    assert (_num_gpus(EMPTY, "auto", 1), _num_gpus(EMPTY, "auto", 0), _num_gpus(EMPTY, "cpu")) == (
        1,
        0,
        0,
    )


@pytest.mark.parametrize("name", ["quickstart", "hub-model", "cheapest"])
def test_the_configurations_of_the_readme_run_on_a_cluster_that_starts_from_nothing(name):
    """cluster/aws.yaml and cluster/rayjob.yaml make such ones,
    and the command in the README was refused there."""
    config = load_config(str(CONFIGS / f"{name}.yaml"), [])
    assert resources_on(EMPTY, config, is_local=False).num_workers == config.workers.max


@pytest.mark.parametrize(
    ("total", "workers", "is_local", "num_cpus"),
    [
        (CPUS, WorkersConfig(), True, 4),
        (CPUS, WorkersConfig(max=2), True, 2),
        (CPUS, WorkersConfig(max=8), True, 1),
        (CPUS, WorkersConfig(num_cpus=3), True, 3),
        ({"CPU": 3.0}, WorkersConfig(), True, 3),
        (CPUS, WorkersConfig(), False, 1),
        (GPUS, WorkersConfig(), True, 1),
    ],
)
def test_the_workers_of_a_laptop_share_its_cores(
    total: dict[str, float], workers: WorkersConfig, is_local: bool, num_cpus: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """8 processors in 4 cores: a run with the defaults decoded on one of them."""
    monkeypatch.setattr("torch.get_num_threads", lambda: 4)
    resources = resources_on(total, Config(workers=workers), is_local=is_local)
    assert resources.num_cpus == num_cpus
