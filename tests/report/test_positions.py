"""Laws of long rows: what went beyond the positions that a model was trained for is said,
with how many rows did."""

import json
from pathlib import Path

import pytest
from report_runs import write_run

from dynts_batch.data.run_dir import RunDir
from dynts_batch.report.totals import beyond_text


@pytest.mark.parametrize(
    ("trained", "text"),
    [
        (101, None),
        (100, "1 of 3 rows went beyond the 100 positions"),
        (64, "2 of 3 rows went beyond the 64 positions"),
        (None, None),
    ],
)
def test_rows_beyond_the_positions_of_their_model_are_counted(
    trained: int | None, text: str | None, tmp_path: Path
) -> None:
    lengths = [(10, 91), (30, 35), (60, 4)]
    rows = [
        {"request_id": f"q{n}", "prompt_tokens": prompt, "completion_tokens": completion}
        for n, (prompt, completion) in enumerate(lengths)
    ]
    path = Path(write_run(tmp_path / "run", rows))
    fingerprint = json.loads((path / "fingerprint.json").read_text())
    fingerprint["model"] = {"name": "m", "trained_positions": trained}
    (path / "fingerprint.json").write_text(json.dumps(fingerprint))
    found = beyond_text(RunDir(str(path)))
    assert (found or "").startswith(text or "")
    assert (found is None) == (text is None)
