#!/usr/bin/env bash
# math-verify 0.9.0, latex2sympy2_extended 1.11.0, sympy 1.14.0 (Python 3.11).
# Guess: the charge and the mass of the electron are different numbers to a checker of answers.
# Seen: all numbers below some 1e-17 are one. A product with a power of ten is no atomic number to
# verify(), so the difference goes through evalf(chop=True), which drops what is absolutely small; a
# sign or twelve orders of magnitude are lost. At 1e-9 they are told apart. So every answer in
# coulomb, joule or kilogram of one particle is right. Raising numeric_precision, which the
# documentation advises, moves the bound.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "math-verify==0.9.0" "latex2sympy2_extended==1.11.0" \
    "sympy==1.14.0" "antlr4-python3-runtime==4.13.2"
seen=$("$folder/venv/bin/python" - <<'PYTHON'
from math_verify import parse, verify

pairs = [
    (r"1.602\times10^{-19}", r"9.109\times10^{-31}"),
    (r"2\times10^{-17}", r"-2\times10^{-17}"),
    (r"\frac{1}{10^{20}}", r"\frac{2}{10^{20}}"),
    (r"1.602\times10^{-9}", r"9.109\times10^{-9}"),
]
for a, b in pairs:
    print(a, "is", b, verify(parse(f"${a}$"), parse(f"${b}$")))
for precision in (15, 40):
    pair = parse(r"$2\times10^{-30}$"), parse(r"$3\times10^{-30}$")
    same = verify(*pair, numeric_precision=precision)
    print("2e-30 is 3e-30 at precision", precision, same)
PYTHON
)
echo "$seen"
expected=$(cat <<'TEXT'
1.602\times10^{-19} is 9.109\times10^{-31} True
2\times10^{-17} is -2\times10^{-17} True
\frac{1}{10^{20}} is \frac{2}{10^{20}} True
1.602\times10^{-9} is 9.109\times10^{-9} False
2e-30 is 3e-30 at precision 15 True
2e-30 is 3e-30 at precision 40 False
TEXT
)
[ "$seen" = "$expected" ]
