"""Laws of size: a million prompts are planned in seconds, and a run that is nearly done resumes in seconds.

`python -m pytest tests/chaos/test_scale.py -m long -s` prints the seconds. What is asserted is CPU time: it does not depend
on what else the machine does.
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

REPOSITORY = Path(__file__).parents[2]
NUM_ROWS = 1_000_000
SHARD_ROWS = 64

_MEASURE = """
import json, resource, sys, time
from dynts_batch.config_file import load_config
from dynts_batch.runner.preflight import prepare
started_s, cpu_s = time.monotonic(), time.process_time()
run = prepare(load_config(sys.argv[1]), is_local=True)
seconds, cpu_s = time.monotonic() - started_s, time.process_time() - cpu_s
rss_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps([seconds, cpu_s, rss_bytes, len(run.shards_to_do), run.plan.num_shards]))
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


def _prepare(config: Path) -> list:
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(config)], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def _words(seconds: float, cpu_s: float, rss_bytes: int) -> str:
    return f"{seconds:.1f} s ({cpu_s:.1f} s of CPU) with {rss_bytes / 2**20:.0f} MiB"


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_million_prompts_are_planned_and_resumed_in_seconds(config):
    seconds, cpu_s, rss_bytes, num_to_do, num_shards = _prepare(config)
    print(f"\nplanned {NUM_ROWS:,} rows in {_words(seconds, cpu_s, rss_bytes)}")
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
    seconds, cpu_s, rss_bytes, num_to_do, _ = _prepare(config)
    print(f"resumed at 99% in {_words(seconds, cpu_s, rss_bytes)}")
    assert num_to_do == num_shards - num_shards * 99 // 100
    assert cpu_s < 20
    assert rss_bytes < 2**30
