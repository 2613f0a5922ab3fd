"""Law of speed: what a run does beside decoding costs next to nothing,
with real workers on a real Ray cluster.

`python -m pytest tests/runner/test_overhead.py -m long -s` prints the shares. What is asserted is
CPU time: the engine only sleeps, so all CPU time of the workers and the driver is what is not the
engine, and it does not depend on what else the machine does. The share of the wall-clock time does,
as that of bare sleeping processes beside the run shows.
"""

import multiprocessing
import os
import time

import psutil
import pytest
from chaos import workers
from fake_run import make_config

from dynts_batch.runner.cluster import open_cluster, plan_resources
from dynts_batch.runner.driver.driver import Driver
from dynts_batch.runner.driver.ray_fleet import RayFleet
from dynts_batch.runner.messages import Job
from dynts_batch.runner.prepared_run import prepare

pytestmark = pytest.mark.ray

NUM_ROWS = 20_000
NUM_WORKERS = 8
ROW_S = 0.05
MAX_SEQS = 4
STEP_S = ROW_S * MAX_SEQS  # one token a row: a step ends MAX_SEQS rows
IDEAL_S = NUM_ROWS * ROW_S / NUM_WORKERS


class Watch:
    """What the run shows, with the time and, while it lasts, the CPU time of all its processes."""

    def __init__(self) -> None:
        self.ready: tuple[float, float, int] | None = None
        self.last: tuple[float, float, int] | None = None
        self._processes: list[psutil.Process] = []

    def show(self, state) -> None:
        if self.ready is None and state.num_workers == NUM_WORKERS:
            self._processes = [psutil.Process(), *workers()]
            self.ready = (time.monotonic(), self._cpu_s(), state.num_done)
        elif self.ready is not None and (self.last is None or self.last[2] < NUM_ROWS):
            if state.num_workers == NUM_WORKERS:
                self.last = (time.monotonic(), self._cpu_s(), state.num_done)
            else:  # the first ones were let go
                self.last = (time.monotonic(), self.last[1], state.num_done)

    def _cpu_s(self) -> float:
        times = [process.cpu_times() for process in self._processes]
        return sum(spent.user + spent.system for spent in times)


def _sleep() -> None:
    for _ in range(round(IDEAL_S / STEP_S / 4)):
        time.sleep(STEP_S)


def _bare_share() -> float:
    """What is not sleep where nothing is done but sleeping."""
    began_s = time.monotonic()
    processes = [multiprocessing.Process(target=_sleep) for _ in range(NUM_WORKERS)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return 1 - IDEAL_S / 4 / (time.monotonic() - began_s)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_all_but_the_engine_takes_less_cpu_time_than_three_percent_of_a_run(tmp_path):
    config = make_config(
        tmp_path,
        NUM_ROWS,
        model={"name": f"fake:step_s={STEP_S}"},
        sampling={"max_new_tokens": 1},
        memory={"max_seqs": MAX_SEQS},
        run={"dir": str(tmp_path / "run"), "shard_rows": 32},
        workers={"min": NUM_WORKERS, "max": NUM_WORKERS, "num_cpus": 0.1},
    )
    bare_share = _bare_share()
    run, watch = prepare(config, is_local=True), Watch()
    with open_cluster(None):
        job = Job(run.config, run.source.schema, 0, os.getcwd())
        fleet = RayFleet(job, plan_resources(config, is_local=True))
        driver = Driver(run, fleet, num_workers=NUM_WORKERS, show=watch.show, warn=print)
        assert driver.run(lambda: False)
    (ready_s, ready_cpu_s, num_before), (ended_s, ended_cpu_s, _) = watch.ready, watch.last
    seconds, cpu_s = ended_s - ready_s, ended_cpu_s - ready_cpu_s
    engine_s = (NUM_ROWS - num_before) * ROW_S
    wall_share, cpu_share = 1 - engine_s / NUM_WORKERS / seconds, cpu_s / (cpu_s + engine_s)
    print(
        f"\n{NUM_ROWS:,} rows of {ROW_S * 1000:.0f} ms on {NUM_WORKERS} workers: {seconds:.1f} s,"
        f" {wall_share:.2%} of them not engine (bare sleeping: {bare_share:.2%});"
        f" {cpu_s:.1f} s of CPU time for {engine_s:.0f} s of engine, {cpu_share:.2%} of both"
    )
    assert cpu_share < 0.03
