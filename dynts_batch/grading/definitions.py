"""Equations that give a name a value: what they define, and when two names may mean one thing."""

from __future__ import annotations

import re

from dynts_batch.grading.notation.structure import Relation

_NAME = re.compile(r"(?:[A-Za-z]|\\[a-z]+)(?:_(?:\w|\{\w+\}))?(?:\([^()]*\))?'?")


def is_name(term: str) -> bool:
    """Whether `term` is one name: x, a_n, \\alpha, f(x)."""
    return _NAME.fullmatch(term) is not None


def definition(relation: Relation) -> tuple[str, str] | None:
    """The name that an equation gives a value, and the value: ("y", "2x") of y = 2x; else None."""
    first, last = relation.terms[0], relation.terms[-1]
    if is_name(first):
        return first, last
    return (last, first) if is_name(last) else None


def name_one_thing(mine: tuple[str, str], theirs: tuple[str, str]) -> bool:
    """Whether two names may be one function's: y, f(x) and f."""
    names = [name.replace(" ", "").replace("~", "") for name, _ in (mine, theirs)]
    heads = [name.partition("(")[0].partition("_")[0] for name in names]
    if names[0] == names[1] or heads[0] == heads[1]:
        return True
    is_function = ["(" in name for name in names]
    return any(is_function) and all(
        flag or head == "y" for flag, head in zip(is_function, heads, strict=True)
    )
