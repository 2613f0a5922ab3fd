#!/usr/bin/env bash
# evalplus 0.3.1, tree-sitter 0.25.2, tree-sitter-python 0.25.0, Python 3.11.
#
# Guess: sanitize(), through which evalplus.codegen sends every completion, takes away prose, tests
# and what the entry point does not need. A correct answer stays correct.
# Behaviour: of the top level it keeps imports, classes, assignments to one name, and functions that
# have a return statement; the rest goes, also where the entry point calls it. A function with a
# decorator (@lru_cache, the usual way to memoize) goes, and so do one that changes its argument in
# place, a generator, a loop that fills a table, "a, b = ..." and an import that is tried. All that
# is left of these is a NameError or a table without its rows; a decorated entry point is
# gone as a whole. The module stays valid Python, and nothing is said.
# Output seen:
#   decorated helper: passed, sanitized NameError
#   helper in place: passed, sanitized NameError
#   generator: passed, sanitized NameError
#   loop over a table: passed, sanitized KeyError
#   two names: passed, sanitized NameError
#   import in try: passed, sanitized NameError
#   decorated entry point: passed, sanitized KeyError
#   plain helper: passed, sanitized passed
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --no-deps evalplus==0.3.1
"$folder/venv/bin/pip" install -q tree-sitter==0.25.2 tree-sitter-python==0.25.0 \
    datasets==5.2.0 wget==3.2 tempdir==0.7.1 appdirs==1.4.4 termcolor==3.1.0 tqdm
HOME=$folder "$folder/venv/bin/python" - > "$folder/out" <<'PYTHON'
from evalplus.sanitize import sanitize

ANSWERS = {
    "decorated helper": """
from functools import lru_cache

@lru_cache(maxsize=None)
def paths(n):
    return 1 if n < 2 else paths(n - 1) + paths(n - 2)

def solve(n):
    return paths(n)
""",
    "helper in place": """
def double_all(values):
    for i in range(len(values)):
        values[i] *= 2

def solve(n):
    values = [n]
    double_all(values)
    return values[0]
""",
    "generator": """
def digits(n):
    while n:
        yield n % 10
        n //= 10

def solve(n):
    return sum(digits(n))
""",
    "loop over a table": """
SQUARES = {}
for i in range(100):
    SQUARES[i] = i * i

def solve(n):
    return SQUARES[n]
""",
    "two names": """
SCALE, SHIFT = 3, 4

def solve(n):
    return SCALE * n + SHIFT
""",
    "import in try": """
try:
    from math import isqrt
except ImportError:
    isqrt = lambda n: int(n**0.5)

def solve(n):
    return isqrt(n)
""",
    "decorated entry point": """
from functools import cache

@cache
def solve(n):
    return 1 if n < 2 else solve(n - 1) + solve(n - 2)
""",
    "plain helper": """
def square(n):
    return n * n

def solve(n):
    return square(n)
""",
}
EXPECTED = dict(zip(ANSWERS, [89, 20, 1, 100, 34, 3, 89, 100], strict=True))


def run(code, expected):
    names = {}
    try:
        exec(code, names)
        return "passed" if names["solve"](10) == expected else "failed"
    except Exception as error:
        return type(error).__name__


for name, code in ANSWERS.items():
    answer = f"Here is the function:\n```python{code}```\nIt runs in linear time."
    sanitized = sanitize(answer, entrypoint="solve")
    print(f"{name}: {run(code, EXPECTED[name])}, sanitized {run(sanitized, EXPECTED[name])}")
PYTHON
cat "$folder/out"
[ "$(grep -c ": passed, sanitized [A-Z][A-Za-z]*Error$" "$folder/out")" = 7 ]
grep -q "^plain helper: passed, sanitized passed$" "$folder/out"
