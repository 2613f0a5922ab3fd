#!/usr/bin/env bash
# math-verify 0.9.0, latex2sympy2_extended 1.11.0, sympy 1.14.0 (Python 3.11).
# Guess: two set-builders are compared by their conditions, or as text; a set is no open interval.
# Seen: of {x | -2 <= x < 1} one number is read, 1, and of {x | x = 3k, k in Z} the 3. So any
# set-builder with that number is right, and so is the bare number. A pair in parentheses is an open
# interval, and the set of its two ends in the order of its brackets is that interval.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "math-verify==0.9.0" "latex2sympy2_extended==1.11.0" \
    "sympy==1.14.0" "antlr4-python3-runtime==4.13.2"
seen=$("$folder/venv/bin/python" - <<'PYTHON'
from math_verify import parse, verify


def same(a, b):
    return verify(parse(f"${a}$"), parse(f"${b}$"))


print(parse(r"$\{x|-2\leq x < 1\}$")[0], parse(r"$\{x|x=3k,k\in\mathbb{Z}\}$")[0])
print("1 for the set:", same(r"\{x|-2\leq x < 1\}", "1"))
print("x > -9 for -2 <= x:", same(r"\{x|-2\leq x < 1\}", r"\{x|-9 < x < 1\}"))
print("N for Z:", same(r"\{x|x=3k,k\in\mathbb{Z}\}", r"\{x|x=3k,k\in\mathbb{N}\}"))
print(r"\{1,3\} for (1,3):", same("(1,3)", r"\{1,3\}"))
PYTHON
)
echo "$seen"
expected=$(cat <<'TEXT'
1 3
1 for the set: True
x > -9 for -2 <= x: True
N for Z: True
\{1,3\} for (1,3): True
TEXT
)
[ "$seen" = "$expected" ]
