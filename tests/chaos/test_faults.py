"""Laws of trust on a real cluster: a bad node costs no row and is named, broken code ends the run,
bad requests do not."""

import pytest
from chaos import Driver, Nodes
from fake_run import make_config, stable_rows, write_config, write_problems
from local_run import finish_run

pytestmark = [pytest.mark.ray, pytest.mark.long]

NUM_ROWS = 120


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    """Two nodes that hold two workers each."""
    with Nodes(2) as nodes:
        yield nodes


def _run(nodes, folder, special=None, *overrides, step_s=0.02, log=None, **groups):
    problems = write_problems(folder / "problems.jsonl", NUM_ROWS, special)
    log = log or folder / "admitted.txt"
    config = write_config(
        folder,
        problems,
        model={"name": f"fake:step_s={step_s},log={log}"},
        run={"dir": str(folder / "run"), "shard_rows": 10},
        workers={"num_cpus": 0.5, **groups},
    )
    driver = Driver(str(config), nodes.address, *overrides)
    _, errors = driver.process.communicate(timeout=240)
    return driver.process.returncode, errors.splitlines()


def _deaths(lines):
    return [line for line in lines if "died and is replaced" in line]


@pytest.mark.parametrize("max_workers", [1, 6])
def test_a_bad_node_costs_no_row_and_is_named(tmp_path, max_workers):
    """Every worker on it dies at its first request:
    each of its requests was quarantined, and the others' too."""
    log = tmp_path / "admitted.txt"
    with Nodes(1) as nodes:
        bad = nodes.add_bad_one(tmp_path / "bad", log)
        status, lines = _run(nodes, tmp_path, step_s=0.02 * max_workers, log=log, max=max_workers)
    print("\n".join(lines))
    assert status == 0, lines
    calm = finish_run(make_config(tmp_path, NUM_ROWS, run={"dir": str(tmp_path / "calm")}))
    assert stable_rows(tmp_path / "run") == stable_rows(calm.path)
    assert all("No space left on device" in line for line in _deaths(lines))
    if max_workers > 1:
        assert 2 <= len(_deaths(lines)) <= 6
        (named,) = [line for line in lines if line.startswith("avoided for a while: ")]
        assert f"({bad[:8]})" in named
        assert "No space left on device" in named


@pytest.mark.parametrize("max_workers", [1, 4])
def test_what_kills_every_worker_ends_the_run_soon_with_its_words(nodes, tmp_path, max_workers):
    special = {index: f"[[raise]] {index}" for index in range(NUM_ROWS)}
    status, lines = _run(nodes, tmp_path, special, max=max_workers)
    print("\n".join(lines))
    assert status == 1
    assert lines[-1].startswith("error: workers die whatever they are given: ")
    assert "RuntimeError: the prompt asked for an exception. What is done" in lines[-1]
    assert len(_deaths(lines)) <= max_workers + 2 + 4
    assert not any("avoided" in line for line in lines)
    assert not (tmp_path / "run" / "rows").exists() or not any(
        (tmp_path / "run" / "rows").iterdir()
    )


def test_three_bad_requests_in_different_shards_end_no_run(nodes, tmp_path):
    """The first of the first three shards: each is among the first that its worker admits."""
    status, lines = _run(nodes, tmp_path, {0: "[[kill]]", 10: "[[raise]]", 20: "[[kill]]"}, max=3)
    print("\n".join(lines))
    assert status == 3, lines
    rows = {row["request_id"]: row["error_type"] for row in stable_rows(tmp_path / "run")}
    assert len(rows) == NUM_ROWS
    assert {id_: error for id_, error in rows.items() if error} == dict.fromkeys(
        ["p0", "p10", "p20"], "QuarantinedError"
    )
