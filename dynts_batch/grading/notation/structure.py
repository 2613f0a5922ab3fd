r"""What an answer is: a set of reals, list, set, tuple, matrix, equation, ratio, time or quantity.

Reads typeset text by its brackets and signs alone. The parts stay text: whoever compares them reads
them in turn.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from dynts_batch.grading.notation.clock import Clock, read_clock
from dynts_batch.grading.notation.numeral import read_numeral
from dynts_batch.grading.notation.quantity import Quantity, read_quantity, read_sum
from dynts_batch.grading.notation.typography import typeset


@dataclass(frozen=True, slots=True)
class Group:
    """Items, whose order matters in a tuple only. A list has no brackets: "2 and 3"."""

    kind: Literal["list", "set", "tuple"]
    items: tuple[str, ...]
    brackets: str = ""


@dataclass(frozen=True, slots=True)
class Builder:
    r"""`\{x | x = 3k, k \in \mathbb{Z}\}`: the conditions, and their subject."""

    subject: str
    conditions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Matrix:
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Relation:
    """`terms[0] signs[0] terms[1] ...`. A chain of inequalities is turned so that it ascends."""

    terms: tuple[str, ...]
    signs: tuple[str, ...]

    @property
    def is_equation(self) -> bool:
        return all(sign in ("=", r"\approx", r"\equiv") for sign in self.signs)


@dataclass(frozen=True, slots=True)
class Ratio:
    items: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Words:
    """Text without mathematics. Articles and plural endings are removed."""

    words: tuple[str, ...]


Reading = Group | Builder | Matrix | Relation | Ratio | Words | Clock | Quantity

_GROUPED_DIGITS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,])")
_CONJUNCTION = re.compile(
    r"(?:[ ~]|(?<=[0-9)}])|^)(?:and|or|und|et)(?![A-Za-z])[ ~]*", re.IGNORECASE
)
_SIGN = re.compile(r"<=|>=|(?:\\(?:le|ge|ne|in|approx|equiv|subset|subseteq)(?![A-Za-z]))|[<>=]")
_MATRIX = re.compile(
    r"[\[(]?[ ~]*\\begin\{([pbB]?matrix|array)\}(?:\{[clr| ]*\})?(.*)\\end\{\1\}[ ~]*[\])]?",
    re.DOTALL,
)
_OPENING, _CLOSING = "([{", ")]}"
_NAMED_POINT = re.compile(r"[A-Z](?=\()|\([a-z](?:,[ ~]*[a-z]){1,3}\)[ ~]*=[ ~]*(?=\()")
_TO = re.compile(r"([\d.,]+)[ ~]+to[ ~]+([\d.,]+)")
_WORDS = re.compile(r"[^\W\d_]+(?:[ ~'-]+[^\W\d_]+)*[.!]?")
_ARTICLES = frozenset({"a", "an", "the"})
_EMPTY = re.compile(r"\\emptyset|\\\{[ ~]*\\\}|(?:the[ ~])?empty[ ~]set", re.IGNORECASE)
_TURNED = {">": "<", r"\ge": r"\le", ">=": r"\le"}
_SPELLED = {"<=": r"\le", ">=": r"\ge"}


def read(text: str, *, may_be_attached: bool = False) -> Reading:
    """What the short answer `text` is. If it is nothing else, it is a quantity."""
    text = typeset(text)
    if (clock := read_clock(text)) is not None:
        return clock
    if read_numeral(text) is None:
        found = read_sum(text) or _structure(text)
        if found is not None:
            return found
    return read_quantity(text, may_be_attached=may_be_attached)


def _structure(text: str) -> Group | Builder | Matrix | Relation | Ratio | Words | None:
    if matrix := _MATRIX.fullmatch(text):
        return Matrix(_rows(matrix[2]))
    if _EMPTY.fullmatch(text):
        return Group("set", ())
    items = split_items(text)
    if len(items) > 1:
        return Group("list", items)
    named = _NAMED_POINT.match(text)
    if (group := _bracketed(text[named.end() :] if named else text)) is not None:
        return group
    return _relation(text) or _ratio(text) or _words(text)


def split_items(text: str, *, keep_digits_together: bool = True) -> tuple[str, ...]:
    r"""The items of a list without brackets; `\pm 3` is two. One item means that it is no list."""
    if keep_digits_together:
        text = _GROUPED_DIGITS.sub(lambda number: number[0].replace(",", ""), text)
    parts = [part for comma in split(text, ",;") for part in _split_conjunctions(comma)]
    items = [
        variant for part in parts if part.strip("~ ") for variant in _signs_apart(part.strip("~ "))
    ]
    return tuple(items)


def split(text: str, separators: str) -> Iterator[str]:
    """`text` cut at the one-character `separators` that stand outside all brackets."""
    start = 0
    for position, depth in _depths(text):
        if depth == 0 and text[position] in separators:
            yield text[start:position]
            start = position + 1
    yield text[start:]


def _depths(text: str) -> Iterator[tuple[int, int]]:
    depth = 0
    for position, char in enumerate(text):
        if char in _CLOSING:
            depth = max(depth - 1, 0)
        yield position, depth
        if char in _OPENING:
            depth += 1


def _split_conjunctions(text: str) -> list[str]:
    outside = {position for position, depth in _depths(text) if depth == 0}
    parts, start = [], 0
    for found in _CONJUNCTION.finditer(text):
        if found.start() in outside:
            parts.append(text[start : found.start()])
            start = found.end()
    return [*parts, text[start:]]


def _signs_apart(text: str) -> list[str]:
    is_set = text.startswith(r"\{") and text.endswith(r"\}") and _is_one_bracket(text)
    if is_set or text.count(r"\pm") + text.count(r"\mp") != 1:  # a set's items are read one by one
        return [text]
    return [re.sub(r"\\[pm][mp](?![A-Za-z])[ ~]*", sign, text) for sign in ("+", "-")]


def _rows(body: str) -> tuple[tuple[str, ...], ...]:
    rows = [row for row in re.split(r"\\\\(?:\[[^\]]*\])?|\\hline", body) if row.strip("~ ")]
    return tuple(tuple(cell.strip("~ ") for cell in split(row, "&")) for row in rows)


def _bracketed(text: str) -> Group | Builder | Matrix | None:
    if re.fullmatch(r"\][^\[\]]*\[", text):  # ]1,3[ is (1,3)
        text = f"({text[1:-1]})"
    is_set = text.startswith(r"\{") and text.endswith(r"\}")
    is_bracketed = is_set or (text != "" and text[0] in _OPENING and text[-1] in _CLOSING)
    if not is_bracketed or not _is_one_bracket(text):
        return None
    inner = (text[2:-2] if is_set else text[1:-1]).strip("~ ")
    if is_set and (builder := _builder(inner)) is not None:
        return builder
    items = tuple(item.strip("~ ") for item in split(inner, ",;"))
    if is_set or text.startswith("{"):
        return Group("set", _once(tuple(v for item in items for v in _signs_apart(item))))
    if len(items) < 2:
        return Group("tuple", items, "[]") if text[0] == "[" else None
    if text[0] == text[-1:].translate({93: 91}) == "[" and all(item[:1] == "[" for item in items):
        return Matrix(
            tuple(tuple(cell.strip("~ ") for cell in split(item[1:-1], ",")) for item in items)
        )
    return Group("tuple", items, text[0] + text[-1])


def _is_one_bracket(text: str) -> bool:
    """Whether the first bracket closes at the very end. It does not in "(1,2)(3,4)"."""
    last = len(text) - 1
    return all(
        depth > 0
        or position in (0, last)
        or (position == 1 and text[0] == "\\")
        or position == last - 1
        for position, depth in _depths(text)
        if position
    )


def _builder(inner: str) -> Builder | Group | None:
    parts = list(split(inner, "|"))
    if len(parts) != 2:
        parts = list(split(inner, ":"))
    if len(parts) != 2:
        return None
    subject = parts[0].strip("~ ")
    if (values := _values_of(subject, parts[1])) is not None:
        return Group("set", values)
    return Builder(subject, tuple(part.strip("~ ") for part in split(parts[1], ",;")))


def _values_of(subject: str, conditions: str) -> tuple[str, ...] | None:
    """The values in "x = 1 or x = 2", if every condition gives a value of `subject`; else None."""
    relations = [_relation(item) for item in split_items(conditions)]
    if not all(r is not None and r.signs == ("=",) and r.terms[0] == subject for r in relations):
        return None
    return tuple(r.terms[1] for r in relations if r is not None)


def _once(items: tuple[str, ...]) -> tuple[str, ...]:
    return tuple({re.sub("[~ ]", "", item): item for item in items}.values())


def _relation(text: str) -> Relation | None:
    outside = {position for position, depth in _depths(text) if depth == 0}
    found = [sign for sign in _SIGN.finditer(text) if sign.start() in outside]
    if not found or not text[: found[0].start()].strip("~ "):
        return None
    cuts = [0, *(position for sign in found for position in sign.span()), len(text)]
    terms = tuple(text[a:b].strip("~ ") for a, b in zip(cuts[::2], cuts[1::2], strict=True))
    signs = tuple(sign[0] for sign in found)
    if any(sign in _TURNED for sign in signs):
        return Relation(terms[::-1], tuple(_TURNED.get(sign, sign) for sign in signs[::-1]))
    return Relation(terms, tuple(_SPELLED.get(sign, sign) for sign in signs))


def _ratio(text: str) -> Ratio | None:
    if to := _TO.fullmatch(text):
        return Ratio((to[1], to[2]))
    items = tuple(item.strip("~ ") for item in split(text, ":"))
    return Ratio(items) if len(items) > 1 and all(items) else None


def _words(text: str) -> Words | None:
    if not _WORDS.fullmatch(text):
        return None
    words = [word for word in re.split(r"[ ~'.!-]+", text.casefold()) if word]
    if len(words) == 1 and len(words[0]) <= 3 and words[0].isascii():  # abc is a product
        return None
    kept = [word for word in words if word not in _ARTICLES] or words
    return Words(tuple(word.removesuffix("s") if len(word) > 3 else word for word in kept))
