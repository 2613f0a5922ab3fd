"""Law of what nobody reads: it goes through a run as Arrow, and comes out bit for bit."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_run import write_config
from local_run import finish_run
from random_arrow import bits, random_table

from dynts_batch.config_file import load_config
from dynts_batch.data.types.storable import plain_type

NUM_ROWS = 7


def _run(folder, table: pa.Table, path: str = "data.arrow") -> pa.Table:
    """The rows of a run over `table`, as read_rows gives them;
    two shards, one of them in two leases."""
    folder.mkdir(exist_ok=True)
    ids = pa.array([f"p{i}" for i in range(table.num_rows)])
    table = table.append_column("id", ids).append_column("question", ids)
    if path.endswith(".parquet"):
        pq.write_table(table, folder / path)
    else:
        with pa.ipc.new_file(folder / path, table.schema) as writer:
            writer.write_table(table)
    config = write_config(
        folder,
        folder / path,
        input={"reference_column": None},
        sampling={"max_new_tokens": 1},
        grading={"kind": "none"},
    )
    run_dir = finish_run(load_config(str(config)))
    return pa.Table.from_batches(list(run_dir.read_rows()))


def _check(folder, seed: int) -> None:
    table = random_table(seed, NUM_ROWS)
    rows = _run(folder, table)
    for name in table.column_names:
        assert rows[name].type == plain_type(table[name].type), (seed, name)
        assert bits(rows[name]) == bits(table[name]), (seed, name, table[name].type)


def test_random_tables_come_out_bit_for_bit(tmp_path):
    for seed in range(12):
        _check(tmp_path / str(seed), seed)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_thousand_random_tables_come_out_bit_for_bit(tmp_path):
    for seed in range(1_000):
        _check(tmp_path / str(seed), seed)


FAR = pa.array([2**63 - 1, None, -(2**63), 0], pa.int64())


@pytest.mark.parametrize("path", ["data.parquet", "data.arrow"])
@pytest.mark.parametrize(
    "type_",
    [
        pa.timestamp("us"),
        pa.timestamp("ms", "UTC"),
        pa.timestamp("ns"),
        pa.duration("s"),
        pa.int64(),
    ],
    ids=str,
)
def test_a_date_that_is_infinite_only_travels(tmp_path, type_, path):
    """A database writes 2^63-1 for "infinity": the driver died of it with an OverflowError."""
    column = FAR.view(type_)
    rows = _run(tmp_path, pa.table({"when": column}), path)
    assert rows["when"].combine_chunks().equals(column)


def test_seconds_that_fit_in_milliseconds_are_stored_as_a_time(tmp_path):
    near, far = pa.array([0, 10**9], pa.int64()), pa.array([0, 2**62], pa.int64())
    table = pa.table({"near": near.view(pa.timestamp("s")), "far": far.view(pa.timestamp("s"))})
    rows = _run(tmp_path, table)
    assert rows.select(["near", "far"]).equals(table)
    stored = pq.read_table(tmp_path / "run" / "rows")
    assert stored["near"].type == pa.timestamp("ms")
    assert stored["far"].type == pa.int64()
