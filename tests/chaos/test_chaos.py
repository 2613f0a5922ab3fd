"""The law of this package: whatever is killed at whatever moment, a run ends with every row, once,
and right.

The long version kills at least 30 times: `python -m pytest tests/chaos -m long -s`.
"""

import contextlib
import random
from collections import Counter

import pytest
from chaos import Driver, Nodes, run_in_chaos, wait_until
from fake_run import make_config, stable_rows, write_config, write_problems
from local_run import finish_run
from s3_server import BUCKET, s3_server

pytestmark = pytest.mark.ray

MAX_SEQS = 4
CHECKPOINT_S = 0.5
_RUN = {"shard_rows": 10, "checkpoint_s": CHECKPOINT_S, "max_attempts": 8}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The rows of runs of some length that nobody disturbs."""
    found = {}

    def rows(num_rows):
        if num_rows not in found:
            folder = tmp_path_factory.mktemp("undisturbed")
            found[num_rows] = stable_rows(finish_run(make_config(folder, num_rows)).path)
        return found[num_rows]

    return rows


def _disturb(nodes, folder, run, *, num_rows, step_s, targets, seed, pause_s, **groups):
    """A run of `num_rows` problems in which `targets` die. `run`: its settings, with `dir`."""
    log = folder / "admitted.txt"
    config = write_config(
        folder,
        write_problems(folder / "problems.jsonl", num_rows),
        model={"name": f"fake:step_s={step_s},log={log}"},
        run=run,
        workers={"num_cpus": 0.4, "min": 1, "max": 4},
        **groups,
    )
    return run_in_chaos(
        nodes,
        str(config),
        run["dir"],
        log,
        targets=targets,
        dice=random.Random(seed),
        pause_s=pause_s,
    )


def _chaos(nodes, folder, run_dir, undisturbed, *, num_rows, step_s, targets, seed, pause_s):
    folder.mkdir()
    outcome = _disturb(
        nodes,
        folder,
        {**_RUN, "dir": run_dir},
        num_rows=num_rows,
        step_s=step_s,
        targets=targets,
        seed=seed,
        pause_s=pause_s,
        memory={"max_seqs": MAX_SEQS},
    )
    units = [(row["request_id"], row["sample_index"]) for row in outcome.rows]
    assert len(set(units)) == len(units) == num_rows
    assert outcome.rows == undisturbed(num_rows)
    regenerated = outcome.num_admitted - num_rows
    # What a worker loses: a batch and a half in its engine, what it finished since the checkpoint
    # before, and what was being written.
    rows_per_s = MAX_SEQS / (10 * step_s)
    per_worker = 1.5 * MAX_SEQS + rows_per_s * (CHECKPOINT_S + 1.0)
    assert regenerated <= outcome.num_workers_killed * per_worker
    print(
        f"\n{num_rows} rows in {outcome.seconds:.0f} s, killed {dict(outcome.kills)} with"
        f" {outcome.num_workers_killed} workers; {regenerated} rows begun again"
    )
    return outcome


def test_a_run_survives_the_death_of_a_worker_a_node_and_its_driver(tmp_path, undisturbed):
    with Nodes() as nodes:
        outcome = _chaos(
            nodes,
            tmp_path / "run",
            str(tmp_path / "run" / "run"),
            undisturbed,
            num_rows=400,
            step_s=0.05,
            targets=["worker", "node", "driver"],
            seed=0,
            pause_s=(1.0, 2.0),
        )
    assert outcome.kills == {"worker": 1, "node": 1, "driver": 1}


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_run_whose_head_is_lost_goes_on_on_a_fresh_cluster(tmp_path, undisturbed):
    log = tmp_path / "admitted.txt"
    config = write_config(
        tmp_path,
        write_problems(tmp_path / "problems.jsonl", 400),
        model={"name": f"fake:step_s=0.5,log={log}"},
        run={**_RUN, "dir": str(tmp_path / "run")},
        workers={"num_cpus": 0.4, "min": 1, "max": 4},
    )
    with Nodes(head_timeout_s=5) as nodes:
        driver = Driver(str(config), nodes.address)
        wait_until(lambda: list((tmp_path / "run").glob("checkpoints/*")))
        nodes.kill_head()
        _, errors = driver.process.communicate(timeout=240)
    print(f"\nhead lost: exit status {driver.process.returncode}\n{errors}")
    assert driver.process.returncode != 0
    num_lost_at = len(log.read_text().splitlines())
    with Nodes() as nodes:
        driver = Driver(str(config), nodes.address, "model.name=fake")
        _, errors = driver.process.communicate(timeout=240)
    assert driver.process.returncode == 0, errors
    assert "resuming" in errors
    assert stable_rows(tmp_path / "run") == undisturbed(400)
    print(f"{num_lost_at} of 400 rows were begun on the first cluster")


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("stop_when", ["agreed", "right"])
def test_samples_that_wait_for_each_other_are_the_same_ones_whatever_dies(tmp_path, stop_when):
    sampling = {"num_samples": 16, "temperature": 0.8, "stop_when": stop_when}
    run = _RUN | {"shard_rows": 32}
    quiet = tmp_path / "quiet"
    quiet.mkdir()
    plain = {
        "sampling": sampling | {"max_new_tokens": 20},
        "run": run | {"dir": str(quiet / "run")},
    }
    expected = stable_rows(finish_run(make_config(quiet, 60, **plain)).path)
    with Nodes() as nodes:
        outcome = _disturb(
            nodes,
            tmp_path,
            run | {"dir": str(tmp_path / "run")},
            num_rows=60,
            step_s=0.05,
            targets=["worker", "node", "driver", "worker", "worker", "driver"],
            seed=stop_when,
            pause_s=(1.0, 5.0),
            sampling=plain["sampling"],
        )
    assert outcome.rows == expected
    num_run = sum(row["finish_reason"] != "skipped" for row in expected)
    print(
        f"\n{dict(outcome.kills)}; {outcome.num_admitted} requests begun for {num_run} of 960 rows"
    )


@pytest.mark.long
@pytest.mark.timeout(900)
def test_second_attempts_are_the_same_ones_whatever_dies(tmp_path):
    policy = {"name": "window", "budget": 10, "window_size": 4, "retry_budget": 14}
    quiet = tmp_path / "quiet"
    quiet.mkdir()
    config = make_config(quiet, 200, policy=policy, run=_RUN | {"dir": str(quiet / "run")})
    expected = stable_rows(finish_run(config).path)
    with Nodes() as nodes:
        outcome = _disturb(
            nodes,
            tmp_path,
            _RUN | {"dir": str(tmp_path / "run")},
            num_rows=200,
            step_s=0.2,
            targets=["worker", "driver", "node", "worker", "worker", "driver", "worker", "driver"],
            seed=0,
            pause_s=(4.0, 8.0),
            policy=policy,
        )
    assert outcome.rows == expected
    print(f"\n{dict(outcome.kills)}; {outcome.num_admitted} requests begun for 200 rows")


@pytest.mark.long
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("store", ["local", "s3"])
def test_runs_survive_at_least_thirty_deaths(tmp_path, undisturbed, store):
    dice = random.Random(20261125)
    kills = Counter()
    with contextlib.ExitStack() as stack:
        if store == "s3":
            _, faults = stack.enter_context(s3_server())
        nodes = stack.enter_context(Nodes())
        least = 30 if store == "local" else 10
        while kills.total() < least:
            number = kills.total()
            if store == "s3":
                faults.failing_share, faults.delay_s = 0.05, 0.02
            run_dirs = {"local": f"{tmp_path}/{number}/run", "s3": f"s3://{BUCKET}/{number}"}
            outcome = _chaos(
                nodes,
                tmp_path / str(number),
                run_dirs[store],
                undisturbed,
                num_rows=500,
                step_s=0.05,
                targets=dice.choices(["worker", "node", "driver"], [3, 1, 1], k=10),
                seed=number,
                pause_s=(0.2, 2.0),
            )
            kills += outcome.kills
    print(f"{store}: {dict(kills)}")
    if store == "s3":
        print(f"{faults.num_failed} of {faults.num_writes} writes failed")
        assert faults.num_failed > 0
