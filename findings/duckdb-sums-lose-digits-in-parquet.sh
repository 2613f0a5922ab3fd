#!/usr/bin/env bash
# duckdb 2.0.1, pyarrow 26.0.1, Python 3.11.
#
# Guess: a sum of BIGINTs, which duckdb holds exactly in 128 bits, goes to Parquet exactly (as a
# decimal), or is refused.
# Behaviour: COPY writes it as DOUBLE without a word: above 2^53 another number stands in the file.
# A column of ids that has been through sum or any HUGEINT is of that type, too, so ids run into
# each other.
# Output seen:
#   in duckdb:  [(9007199254740993,), (9007199254740992,)]
#   in Parquet: double [9007199254740992.0, 9007199254740992.0]
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q duckdb==2.0.1 pyarrow==26.0.1
cd "$folder"
venv/bin/python - <<'PYTHON'
import duckdb
import pyarrow.parquet as pq

base = duckdb.connect()
rows = "from (values (9007199254740993), (9007199254740992)) v(x) group by x order by x desc"
exact = base.execute(f"select sum(x) as id {rows}").fetchall()
base.execute(f"copy (select sum(x) as id {rows}) to 'sums.parquet'")
stored = pq.read_table("sums.parquet")["id"]
print("in duckdb: ", exact)
print("in Parquet:", stored.type, stored.to_pylist())
assert exact == [(9007199254740993,), (9007199254740992,)]
assert str(stored.type) == "double", "it is exact now"
assert len(set(stored.to_pylist())) == 1
PYTHON
