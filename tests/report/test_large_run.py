"""The report of a hundred thousand rows: half a minute and 2 GiB are the most it may take;
of a fifth, in proportion."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from report_runs import ROW, SAMPLE, SCHEMA_OF_ROWS, write_run

from dynts_batch.data.run_dir import RunDir

REPOSITORY = Path(__file__).parents[2]
SHARD_ROWS, NUM_SAMPLES = 64, 4


def _write(path: Path, num_rows: int) -> str:
    """Rows of 4 samples a question, with 2,000 words of thinking each."""
    run_dir = RunDir(write_run(path, [ROW], [SAMPLE], shard_rows=SHARD_ROWS))
    rng = np.random.default_rng(0)
    words = [f"word{number}" for number in range(1_000)]
    row = dict.fromkeys(SCHEMA_OF_ROWS.names) | ROW | {"reasoning": " ".join(words * 2)}
    shard_table = pa.Table.from_pylist([row] * SHARD_ROWS, SCHEMA_OF_ROWS)
    for shard, start in enumerate(range(0, num_rows, SHARD_ROWS)):
        numbers = range(start, min(start + SHARD_ROWS, num_rows))
        units = [(f"question-{n // NUM_SAMPLES}", n % NUM_SAMPLES) for n in numbers]
        correct = rng.random(len(units)) < 0.7
        answers = [
            "4" if c else str(a)
            for c, a in zip(correct, rng.integers(5, 9, len(units)), strict=True)
        ]
        columns = {
            "request_id": [name for name, _ in units],
            "sample_index": [sample for _, sample in units],
            "correct": correct,
            "extracted_answer": answers,
            "completion_tokens": rng.integers(100, 16_000, len(units)),
            "cost_usd": rng.random(len(units)),
            "decode_s": rng.random(len(units)),
        }
        table = shard_table.slice(0, len(units))
        for name, values in columns.items():
            index = table.schema.get_field_index(name)
            field = table.schema.field(index)
            table = table.set_column(index, field, pa.array(values, field.type))
        run_dir.commit_shard(shard, table, units)
    return str(path)


@pytest.mark.parametrize(
    ("num_rows", "max_s", "max_gib"),
    [(20_000, 10, 0.9), pytest.param(100_000, 30, 2, marks=pytest.mark.long)],
)
def test_many_rows_are_reported_in_time_and_memory(tmp_path, num_rows, max_s, max_gib):
    path, page = _write(tmp_path / "run", num_rows), tmp_path / "report.html"
    code = f"""
import resource, runpy, sys
sys.argv = ["report.py", {path!r}, "--html", {str(page)!r}]
try:
    runpy.run_path({str(REPOSITORY / "jobs" / "report.py")!r}, run_name="__main__")
except SystemExit as status:
    assert status.code == 0, status.code
used = resource.getrusage(resource.RUSAGE_SELF)
# Not its maxrss, which is no less than what the process that started this one had.
peak_kib = next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]
print(used.ru_utime + used.ru_stime, int(peak_kib) * 1024)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"{num_rows:,}" in done.stdout
    # The processor's time: the clock would also measure what else the machine does.
    processor_s, peak_bytes = map(float, done.stdout.split()[-2:])
    assert processor_s < max_s
    assert peak_bytes < max_gib * 2**30
    assert page.stat().st_size < 20e6
