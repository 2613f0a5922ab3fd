"""One Ray cluster for all tests that need one, started as a run starts its own."""

from collections.abc import Iterator

import pytest
import ray

from dynts_batch.runner.cluster import open_cluster


@pytest.fixture(scope="session")
def cluster() -> Iterator[str]:
    """Address of the cluster; this process is connected to it."""
    with pytest.MonkeyPatch.context() as patch:
        # Else the workers yield to whatever else runs on this machine.
        patch.setenv("RAY_worker_niceness", "0")
        with open_cluster(None):
            yield ray.get_runtime_context().gcs_address
