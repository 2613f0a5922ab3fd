"""Answers and references that make graders slow, crash or eat memory:
a thousand, the same every time."""

import itertools
import random
from collections.abc import Iterator

#: Each makes math-verify work until it is killed.
BOMBS = [
    "10^{10^{10}}", "10^(10^10)", "9**9**9", "(10^9)!", "((9!)!)!", "2^{2^{2^{2^{2^{2}}}}}",
    r"\sum_{k=1}^{10^{12}} k^{k}", r"\prod_{k=1}^{10^{9}} k", r"\binom{10^{9}}{5 \cdot 10^{8}}",
    r"\int_0^1 \sin(\cos(\tan(\exp(x^{x^{x}})))) dx", "(x+y+z+w)^{3000}", "7^{7^{7^{7}}} mod 10",
]  # fmt: skip

_PIECES = [
    "{", "}", "(", ")", "[", "]", "\\", "$", "^", "_", "+", "-", "*", "/", "=", ",", ";", "<", ">",
    "&",
    r"\frac{", r"\frac{1}{", r"\sqrt{", r"\text{", r"\boxed{", r"\boxed", r"\left(", r"\right)",
    r"\begin{matrix}",
    r"\end{matrix}", r"\lim_{x \to 0}", r"\int_0^1", r"\sum_{i=1}^{n}", r"\infty", r"\cup", r"\in",
    r"\le", r"\pi",
    "1", "0", "9" * 40, "1e99999", "0.", "1,", "1/0", "x", "xyz", "\x00", "\ud800", "\u00e9",
    "\U0001d54f", "\u202e",
    "####", "\n", " ", "\t", "answer is ", "<script>", "__import__('os').abort()", "lambda: 0",
    "nan", "inf", "%", "!",
]  # fmt: skip


def adversarial_rows(count: int) -> Iterator[tuple[str, str]]:
    """`count` different pairs of an answer and a reference."""
    return itertools.islice(_unique(_rows()), count)


def _rows() -> Iterator[tuple[str, str]]:
    for bomb in BOMBS:
        yield rf"\boxed{{{bomb}}}", "x^2"
    for piece, times in itertools.product(_PIECES, (1, 60, 501)):
        text = piece * times
        yield rf"\boxed{{{text}}}", "7"
        yield f"The answer is ${text}$", "y"
    for piece in _PIECES:
        yield "x^3", piece * 40
        yield piece * 20_000, "x + 1"  # the search for an answer has its bound too
    rng = random.Random(6)
    while True:
        text = "".join(rng.choices(_PIECES, k=rng.choice((3, 8, 20, 60))))
        yield rng.choice((r"\boxed{{{}}}", "The answer is {}", "${}$", "{}")).format(text), "z + 2"


def _unique(rows: Iterator[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    seen = set()
    for row in rows:
        if row not in seen:
            seen.add(row)
            yield row
