"""Law of speed: what a run does beside decoding costs next to nothing, with real workers on a real Ray cluster.

`python -m pytest tests/runner/test_overhead.py -m long -s` prints the share.
"""

import os
import time

import pyarrow.compute as pc
import pytest
from fake_run import make_config

from dynts_batch.runner.cluster import open_cluster, plan_resources
from dynts_batch.runner.driver import Driver
from dynts_batch.runner.fleet import RayFleet
from dynts_batch.runner.messages import Job
from dynts_batch.runner.preflight import prepare

NUM_ROWS = 20_000
NUM_WORKERS = 8
ROW_S = 0.05


@pytest.mark.long
@pytest.mark.timeout(900)
def test_all_but_the_engine_takes_less_than_three_percent_of_a_run(tmp_path):
    max_seqs = 4
    config = make_config(
        tmp_path,
        NUM_ROWS,
        # One token a row, so that a step of a batch is `max_seqs` rows of 50 ms.
        model={"name": f"fake:step_s={ROW_S * max_seqs}"},
        sampling={"max_new_tokens": 1},
        memory={"max_seqs": max_seqs},
        run={"dir": str(tmp_path / "run"), "shard_rows": 64},
        workers={"min": NUM_WORKERS, "max": NUM_WORKERS, "num_cpus": 0.1},
    )
    run = prepare(config, is_local=True)
    with open_cluster(None):
        resources = plan_resources(config, is_local=True)
        states = []
        driver = Driver(
            run,
            RayFleet(Job(run.config, run.source.schema, 0, os.getcwd()), resources),
            num_workers=resources.num_workers,
            show=lambda state: states.append((time.monotonic(), state)),
            warn=print,
        )
        assert driver.run(lambda: False)
    ready_s = next(at_s for at_s, state in states if state.num_workers == NUM_WORKERS)
    ended_s = next(at_s for at_s, state in states if state.num_done == NUM_ROWS)
    done_before = next(state.num_done for at_s, state in states if at_s == ready_s)
    ideal_s = (NUM_ROWS - done_before) * ROW_S / NUM_WORKERS
    share = 1 - ideal_s / (ended_s - ready_s)
    print(
        f"\n{NUM_ROWS:,} rows on {NUM_WORKERS} workers: {ended_s - ready_s:.1f} s, of which {share:.2%} not engine"
    )
    assert sum(
        pc.sum(batch["device_s"]).as_py() for batch in run.run_dir.read_rows()
    ) == pytest.approx(NUM_ROWS * ROW_S)
    assert share < 0.03
