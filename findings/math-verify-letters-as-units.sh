#!/usr/bin/env bash
# math-verify 0.9.0, latex2sympy2_extended 1.11.0, sympy 1.14.0 (Python 3.11).
# Guess: "2h" is twice the variable h, as "2x" is twice x; a unit is a word in \text{} or behind a
# space.
# Seen: a last letter, or a last "ab" or "bc", is taken for a unit and dropped if it is one of c d g
# h l m o s t, in the middle of algebra too: x+2h is x+2. So "2" is right where the answer is 2s,
# and 3ab is 3. Other letters stay.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "math-verify==0.9.0" "latex2sympy2_extended==1.11.0" \
    "sympy==1.14.0" "antlr4-python3-runtime==4.13.2"
seen=$("$folder/venv/bin/python" - <<'PYTHON'
from math_verify import parse, verify

for text in ("2h", "2s", "2c", "3ab", "x+2h", "2x", "2k"):
    print(text, "is read as", parse(f"${text}$")[0])
print("2 for 2h:", verify(parse("$2h$"), parse("$2$")))
print("x+2 for x+2h:", verify(parse("$x+2h$"), parse("$x+2$")))
PYTHON
)
echo "$seen"
expected=$(cat <<'TEXT'
2h is read as 2
2s is read as 2
2c is read as 2
3ab is read as 3
x+2h is read as x + 2
2x is read as 2*x
2k is read as 2*k
2 for 2h: True
x+2 for x+2h: True
TEXT
)
[ "$seen" = "$expected" ]
