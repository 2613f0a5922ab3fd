#!/usr/bin/env bash
# pyarrow 26.0.1, Python 3.11.
#
# Guess: take, filter and to_pylist agree on which rows an array has.
# Behaviour: where a fixed-size list holds fixed-size lists that are a slice (of images, of
# tensors), take and filter give rows further on: the offset of the inner slice is added once more.
# No error, no warning, and the type is right. An array of lists that is a slice at the top only is
# taken rightly.
# Output seen:
#   rows:  [[[4, 5], [6, 7]]]
#   taken: [[[8, 9], [10, 11]]]
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q pyarrow==26.0.1
"$folder/venv/bin/python" - <<'PYTHON'
import pyarrow as pa

inner = pa.FixedSizeListArray.from_arrays(pa.array(range(12)), 2).slice(2)
outer = pa.FixedSizeListArray.from_arrays(inner, 2)
outer.validate(full=True)
rows, taken = outer.slice(0, 1).to_pylist(), outer.take(pa.array([0])).to_pylist()
print("rows: ", rows)
print("taken:", taken)
assert rows == [[[4, 5], [6, 7]]]
assert taken == [[[8, 9], [10, 11]]], "take agrees with to_pylist now"
PYTHON
