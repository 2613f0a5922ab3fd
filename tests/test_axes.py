"""One legend of axes: every shape that the package states uses the letters of kvcache/__init__.py,
and no file has its own."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

import dynts_batch.kvcache

PACKAGE = Path(__file__).parents[1] / "dynts_batch"
LEGEND = set(re.findall(r"^    ([A-Z])  ", dynts_batch.kvcache.__doc__ or "", flags=re.MULTILINE))
#: Brackets that no name stands before: a shape, not an index.
SHAPE = re.compile(r"(?<![\w\])])\[([^\[\]]*)\]")
FILES = [
    path
    for folder in ("kvcache", "engine", "training")
    for path in sorted((PACKAGE / folder).rglob("*"))
    if path.suffix in {".py", ".c", ".h"}
]


def prose(path: Path) -> Iterator[str]:
    """Comments and docstrings."""
    text = path.read_text()
    if path.suffix != ".py":
        yield from re.findall(r"/\*.*?\*/", text, flags=re.DOTALL)
        return
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.string
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            yield str(node.value.value)


def letters(text: str) -> set[str]:
    shapes = SHAPE.findall(text)
    return {letter for shape in shapes for letter in re.findall(r"\b[A-Z]\b", shape)}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_shapes_are_stated_in_the_letters_of_one_legend(path: Path) -> None:
    for text in prose(path):
        assert letters(text) <= LEGEND, text
        assert "Letters" not in text, "a legend of its own"


def test_the_letters_of_a_shape_are_found() -> None:
    assert letters("bool [R, H or 1, T], of x[K], and [*, B // K, 2].") == set("RHTBK")
    assert set("RLHGQTCSKDE") <= LEGEND
