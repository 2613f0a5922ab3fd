#!/usr/bin/env bash
# polars 2.1.0, pyarrow 26.0.1, Python 3.11.
#
# Guess: polars writes a 128-bit integer as a decimal of 38 digits, or pyarrow refuses that column
# alone.
# Behaviour: one such column closes the whole file, Parquet and Arrow IPC alike, to pyarrow and to
# all that is built on it: even another column cannot be read, because the schema that polars leaves
# in the file has integers that pyarrow has none of. polars itself reads both back.
# Output seen, for each of the two files:
#   ArrowNotImplementedError: Integers with more than 64 bits not implemented
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q polars==2.1.0 pyarrow==26.0.1
cd "$folder"
venv/bin/python - <<'PYTHON'
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

frame = pl.DataFrame({"text": ["a"], "big": pl.Series([1], dtype=pl.Int128)})
frame.write_parquet("frame.parquet")
frame.write_ipc("frame.arrow")
assert pl.read_parquet("frame.parquet").equals(frame)
assert pl.read_ipc("frame.arrow").equals(frame)


def read_parquet():
    pq.read_table("frame.parquet", columns=["text"])


def read_arrow():
    with pa.OSFile("frame.arrow") as file:
        pa.ipc.open_file(file)


for read in (read_parquet, read_arrow):
    try:
        read()
    except pa.ArrowNotImplementedError as error:
        print(f"{type(error).__name__}: {error}")
        assert "Integers with more than 64 bits" in str(error)
    else:
        raise SystemExit(f"{read.__name__} can read it now")
PYTHON
