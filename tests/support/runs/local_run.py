"""A whole run on the fake engine without Ray, for the tests of what comes after it."""

import os

from local_fleet import LocalFleet

from dynts_batch.config import Config
from dynts_batch.data.run_dir import RunDir
from dynts_batch.runner.driver.driver import Driver
from dynts_batch.runner.messages import Job
from dynts_batch.runner.prepared_run import prepare


def finish_run(config: Config) -> RunDir:
    """Run `config` to its end; its sealed run directory."""
    run = prepare(config, is_local=True)
    fleet = LocalFleet(Job(run.config, run.source.schema, 0, os.getcwd()))
    driver = Driver(run, fleet, num_workers=1, show=lambda state: None, warn=lambda text: None)
    assert driver.run(lambda: False)
    run.run_dir.write_manifest({"num_rows": run.plan.num_units, "num_shards": run.plan.num_shards})
    return run.run_dir
