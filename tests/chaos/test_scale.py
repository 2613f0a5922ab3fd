"""Laws of size: a million prompts are planned in seconds,
and a run that is nearly done resumes in seconds.

`python -m pytest tests/chaos/test_scale.py -m long -s` prints the seconds. What is asserted is CPU
time: it does not depend on what else the machine does.
"""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_run import write_config
from local_run import finish_run

from dynts_batch.config_file import load_config

pytestmark = pytest.mark.ray

REPOSITORY = Path(__file__).parents[2]
NUM_ROWS = 1_000_000
SHARD_ROWS = 64

# From the start of the process, imports and Ray included, to the first shard in a worker's hands.
_MEASURE = """
import json, os, resource, sys, time
import psutil
from dynts_batch.config_file import load_config
from dynts_batch.runner.cluster import open_cluster, plan_resources
from dynts_batch.runner.driver.driver import Driver
from dynts_batch.runner.driver.ray_fleet import RayFleet
from dynts_batch.runner.messages import Job
from dynts_batch.runner.prepared_run import prepare

class FirstWork(Exception):
    pass

class Fleet(RayFleet):
    def send(self, worker_id, assignments, orders):
        assert assignments
        raise FirstWork

def since_start_s():
    return time.time() - psutil.Process().create_time()

run = prepare(load_config(sys.argv[1]), is_local=True)
prepared_s = since_start_s()
try:
    with open_cluster(None):
        resources = plan_resources(run.config, is_local=True)
        fleet = Fleet(Job(run.config, run.source.schema, 0, os.getcwd()), resources)
        Driver(run, fleet, num_workers=1, show=lambda state: None, warn=print).run(lambda: False)
except FirstWork:
    pass
usage = resource.getrusage(resource.RUSAGE_SELF)
figures = [prepared_s, since_start_s(), usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024]
print(json.dumps([*figures, len(run.shards_to_do), run.plan.num_shards]))
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("million")
    rows = {
        "id": [f"p{i}" for i in range(NUM_ROWS)],
        "question": [f"problem number {i} of the test" for i in range(NUM_ROWS)],
        "answer": ["31"] * NUM_ROWS,
    }
    pq.write_table(pa.table(rows), folder / "problems.parquet")
    run = {"dir": str(folder / "run"), "shard_rows": SHARD_ROWS}
    return write_config(folder, folder / "problems.parquet", run=run)


def _begin(config: Path) -> tuple[str, float, int, int, int]:
    """Plan or resume the run until its first work is handed out: (figures in words, CPU seconds,
    memory in bytes, shards to do, shards)."""
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(config)], capture_output=True, text=True, check=True
    )
    prepared_s, begun_s, cpu_s, rss_bytes, *shards = json.loads(done.stdout.splitlines()[-1])
    words = (
        f"prepared after {prepared_s:.1f} s, first work handed out after {begun_s:.1f} s"
        f" ({cpu_s:.1f} s of CPU) with {rss_bytes / 2**20:.0f} MiB"
    )
    return words, cpu_s, rss_bytes, *shards


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_million_prompts_are_planned_and_resumed_in_seconds(config):
    words, cpu_s, rss_bytes, num_to_do, num_shards = _begin(config)
    print(f"\n{NUM_ROWS:,} rows, new run: {words}")
    assert (num_to_do, num_shards) == (15_625, 15_625)
    assert cpu_s < 20
    assert rss_bytes < 2**30

    # What is done: 99% of the shards, as files with the right names and one real content.
    small = load_config(str(config), ["input.limit=64", f"run.dir={config.parent}/small"])
    content = (Path(finish_run(small).path) / "rows" / "shard-00000.parquet").read_bytes()
    rows = config.parent / "run" / "rows"
    rows.mkdir()
    for shard in range(num_shards * 99 // 100):
        (rows / f"shard-{shard:05d}.parquet").write_bytes(content)
    words, cpu_s, rss_bytes, num_to_do, _ = _begin(config)
    print(f"99% done, resumed: {words}")
    assert num_to_do == num_shards - num_shards * 99 // 100
    assert cpu_s < 20
    assert rss_bytes < 2**30
