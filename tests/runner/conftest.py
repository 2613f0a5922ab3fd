"""One Ray cluster for all tests that need one, started as a run starts its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from dynts_batch.runner.cluster import open_cluster
from dynts_batch.runner.reason import reason

QUICKSTART = Path(__file__).parents[2] / "configs" / "quickstart.yaml"


@pytest.fixture(scope="session")
def cluster() -> Iterator[str]:
    """Address of the cluster; this process is connected to it."""
    with pytest.MonkeyPatch.context() as patch:
        # Else the workers yield to whatever else runs on this machine.
        patch.setenv("RAY_worker_niceness", "0")
        with open_cluster(None):
            yield ray.get_runtime_context().gcs_address


@pytest.fixture(scope="session")
def run_dir(cluster: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the embedded model: the first problems, in two shards."""
    folder = tmp_path_factory.mktemp("run") / "run"
    overrides = [
        *("policy.name=full", "input.limit=3", "run.shard_rows=2", f"run.dir={folder}"),
        *("workers.max=1", "memory.max_seqs=3"),
    ]
    assert reason(str(QUICKSTART), overrides) == 0
    return folder
