"""A whole run on the fake engine without Ray, for the tests of what comes after it."""

import os

from local_fleet import LocalFleet

from dynts_batch.config import Config
from dynts_batch.data.run_dir import RunDir
from dynts_batch.runner.driver.driver import Driver
from dynts_batch.runner.messages import Job
from dynts_batch.runner.prepared_run import PreparedRun, prepare
from dynts_batch.runner.retry import parts_of


def finish_run(config: Config) -> RunDir:
    """Run `config` to its end; its sealed run directory."""
    run = prepare(config, is_local=True)
    for part in parts_of(run):
        assert driver_of(part).run(lambda: False)
    run.run_dir.write_manifest({"num_rows": run.plan.num_units, "num_shards": run.plan.num_shards})
    return run.run_dir


def driver_of(part: PreparedRun, *, num_workers: int = 1, **of_fleet) -> Driver:
    """A driver of workers in this process; see LocalFleet for `of_fleet`."""
    job = Job(part.config, part.source.schema, 0, os.getcwd(), part.first_budget)
    quiet = {"show": lambda state: None, "warn": lambda text: None}
    return Driver(part, LocalFleet(job, **of_fleet), num_workers=num_workers, **quiet)
