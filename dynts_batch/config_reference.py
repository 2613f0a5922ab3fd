"""The page of all configuration keys, read from the classes that define them.

`dynts-batch config --keys` prints it. The README beside the shipped configurations is that page; a
test keeps them equal.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from dynts_batch import config
from dynts_batch.config import Config

_HEAD = """\
# Configuration keys

A run is one YAML file. Every key below may stand in it, or on the command line as
`group.key=value`. There a value is YAML too, and text is taken as it stands if no quotes are around
it. A key that is left out has its default. `null` means "not set". Wrong keys, types and values are
refused before Ray starts.

The files beside this page are complete configurations. `dynts-batch config` lists their names, and
`dynts-batch config hub-model > my-run.yaml` prints one to start from. `paper/` has the runs of the
DynTS paper. `dynts-batch config --keys` writes this page from `config.py`.
"""
_POLICIES = """\
### Keys that not every policy has

| key | of | type | default | meaning |
|---|---|---|---|---|
"""


@dataclass(frozen=True)
class Key:
    """One key of a group, as its class states it."""

    name: str
    type: str
    default: str
    meaning: str
    """The docstring below the field; empty if there is none."""


def keys_of(cls: type) -> list[Key]:
    """The keys that `cls` itself defines, without those it inherits, in their order."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    assert isinstance(tree, ast.ClassDef)
    return list(_keys(tree.body))


def groups() -> dict[str, list[Key]]:
    """All keys that are no policy's own, by their group; `run` holds those of RunConfig."""
    found = {}
    for key in keys_of(Config):
        cls = getattr(config, key.type)
        inherited = [base for base in reversed(cls.__mro__) if base is not object]
        keys = [key for base in inherited for key in keys_of(base)]
        found[key.name] = [key for key in keys if key.name != "options"]
    return found


def page(policies: Mapping[str, type]) -> str:
    """The page as Markdown. `policies`: every policy's class by its name."""
    parts = [_HEAD]
    for name, keys in groups().items():
        cls = getattr(config, f"{name.capitalize()}Config")
        parts.append(f"## {name}\n\n{_one_line(inspect.getdoc(cls) or '')}\n")
        rows = ((f"`{name}.{key.name}`", *_cells(key)) for key in keys)
        parts.append("| key | type | default | meaning |\n|---|---|---|---|\n" + _table(rows))
        if name == "policy":
            parts.append(_POLICIES + _table(_own_rows(policies)))
    return "\n".join(parts)


def _own_rows(policies: Mapping[str, type]) -> Iterator[tuple[str, ...]]:
    owners: dict[Key, list[str]] = {}
    for name, cls in sorted(policies.items()):
        for base in reversed(cls.__mro__):
            if base.__module__.startswith("dynts_batch.kvcache.polic"):
                for key in keys_of(base):
                    owners.setdefault(key, []).append(f"`{name}`")
    for key, names in owners.items():
        yield f"`policy.{key.name}`", ", ".join(names), *_cells(key)


def _keys(body: list[ast.stmt]) -> Iterator[Key]:
    followers: list[ast.stmt | None] = [*body[1:], None]
    for statement, follower in zip(body, followers, strict=True):
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
            continue
        kind = ast.unparse(statement.annotation)
        if kind.startswith("ClassVar"):
            continue
        default = "" if statement.value is None else ast.unparse(statement.value)
        if default.startswith("field("):
            default = "{}"
        meaning = ""
        if isinstance(follower, ast.Expr) and isinstance(follower.value, ast.Constant):
            meaning = _one_line(str(follower.value.value))
        yield Key(statement.target.id, kind, default, meaning)


def _cells(key: Key) -> tuple[str, str, str]:
    return f"`{_yaml_type(key.type)}`", f"`{_yaml_value(key.default)}`", key.meaning


def _yaml_type(kind: str) -> str:
    if kind.startswith("Literal["):
        choices = ast.literal_eval(f"[{kind.removeprefix('Literal[').partition(']')[0]}]")
        rest = kind.partition("]")[2]
        kind = " | ".join(choices) + rest
    return kind.replace("None", "null").replace("str", "text").replace("dict[text, Any]", "map")


def _yaml_value(default: str) -> str:
    words = {"None": "null", "True": "true", "False": "false", "''": '""'}
    return words.get(default, default.strip("'"))


def _table(rows: Iterable[tuple[str, ...]]) -> str:
    escaped = ([cell.replace("|", r"\|") for cell in row] for row in rows)
    return "".join(f"| {' | '.join(cells)} |\n" for cells in escaped)


def _one_line(text: str) -> str:
    return " ".join(text.split())
