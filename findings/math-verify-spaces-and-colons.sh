#!/usr/bin/env bash
# math-verify 0.9.0, latex2sympy2_extended 1.11.0, sympy 1.14.0 (Python 3.11).
# Guess: a mixed number, a time of day and a number with a thin space are read as what they are, or
# not at all.
# Seen: each is read as another number, without an error. \boxed{3 1/2} is 2, a bare "3 1/2" is 1,
# 10:30 is 1/3, 1\ 000 is 1 times 0. So the answer 3 1/2 is right where 2 is, and 10:30 is right
# where 1/3 is. 3\frac{1}{2} is 7/2, as it should be.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "math-verify==0.9.0" "latex2sympy2_extended==1.11.0" \
    "sympy==1.14.0" "antlr4-python3-runtime==4.13.2"
seen=$("$folder/venv/bin/python" - <<'PYTHON'
from math_verify import parse, verify

for text in (r"\boxed{3 1/2}", "3 1/2", r"\boxed{10:30}", r"$1\ 000$", r"$3\frac{1}{2}$"):
    print(text, "is read as", parse(text)[0])
print("3 1/2 for 2:", verify(parse("$2$"), parse(r"\boxed{3 1/2}")))
print("10:30 for 1/3:", verify(parse("$1/3$"), parse(r"\boxed{10:30}")))
print("0 for 1 000:", verify(parse(r"$1\ 000$"), parse("$0$")))
PYTHON
)
echo "$seen"
expected=$(cat <<'TEXT'
\boxed{3 1/2} is read as 2
3 1/2 is read as 1
\boxed{10:30} is read as 1/3
$1\ 000$ is read as 1*0
$3\frac{1}{2}$ is read as 7/2
3 1/2 for 2: True
10:30 for 1/3: True
0 for 1 000: True
TEXT
)
[ "$seen" = "$expected" ]
