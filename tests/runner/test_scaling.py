"""Laws of speed: twice the workers take half the time, tail included,
and a large run costs the driver little.

Time is simulated where it says so: workers are real, their engines count device time instead of
spending it, and the fleet lets each call take, on its clock, what its engine counted.
"""

import heapq
import itertools
import os

import pytest
from fake_run import make_config
from local_fleet import LocalFleet

from dynts_batch.runner.driver.driver import Driver
from dynts_batch.runner.messages import Job
from dynts_batch.runner.prepared_run import prepare

STEP_S = 0.05


class SimulatedFleet(LocalFleet):
    """Workers that work at the same time, on a clock that runs as fast as this machine allows."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.now_s = 0.0
        self._due: list = []
        self._numbers = itertools.count()

    def wait(self, timeout_s):
        calls, self._calls = self._calls, []
        for worker_id, call in calls:
            busy_s = self._busy_s(worker_id)
            event = call()
            due_s = self.now_s + self._busy_s(worker_id, default=busy_s) - busy_s
            heapq.heappush(self._due, (due_s, next(self._numbers), event))
        if not self._due:
            return []
        self.now_s, _, event = heapq.heappop(self._due)
        return [event]

    def _busy_s(self, worker_id, default=0.0):
        worker = self._workers.get(worker_id)
        return default if worker is None else worker._feed.busy_s


def _simulated_s(folder, num_rows: int, num_workers: int) -> float:
    """Seconds that the run takes, by the simulated clock."""
    folder.mkdir()
    config = make_config(
        folder,
        num_rows,
        model={"name": f"fake:step_s={STEP_S},simulated=true"},
        sampling={"max_new_tokens": 40},
        policy={"name": "window", "budget": 32, "window_size": 4},
        memory={"max_seqs": 8},
        run={"dir": str(folder / "run"), "shard_rows": 8, "checkpoint_s": 1000.0},
        workers={"min": 1, "max": num_workers},
        grading={"kind": "none"},
    )
    run = prepare(config, is_local=True)
    fleet = SimulatedFleet(Job(run.config, run.source.schema, 0, os.getcwd()))
    ended_s = []
    driver = Driver(
        run,
        fleet,
        num_workers=num_workers,
        show=lambda state: ended_s.append(fleet.now_s),
        warn=lambda text: None,
    )
    assert driver.run(lambda: False)
    return max(ended_s)


def _efficiency(tmp_path, num_workers: int, rows_per_worker: int) -> float:
    num_rows = num_workers * rows_per_worker
    alone_s = _simulated_s(tmp_path / "alone", num_rows, 1)
    together_s = _simulated_s(tmp_path / "together", num_rows, num_workers)
    print(f"\n{num_rows} rows: {alone_s:.1f} s on 1 worker, {together_s:.2f} s on {num_workers}")
    return alone_s / together_s / num_workers


def test_eight_workers_are_nearly_eight_times_as_fast(tmp_path):
    assert _efficiency(tmp_path, 8, 240) >= 0.95


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_sixty_four_workers_are_nearly_sixty_four_times_as_fast(tmp_path):
    assert _efficiency(tmp_path, 64, 640) >= 0.95
