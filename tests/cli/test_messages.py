"""What the package tells a user to run exists:
in a clone, and where only the wheel is installed."""

import ast
import re
from pathlib import Path

import pytest

from dynts_batch.cli.commands import COMMANDS
from dynts_batch.shipped import shipped_configs

ROOT = Path(__file__).parents[2]
MODULES = sorted((ROOT / "dynts_batch").rglob("*.py"))
TEXTS = [ROOT / "README.md", *(ROOT / "cluster").iterdir(), *(ROOT / "configs").rglob("*.yaml")]


def strings(path: Path) -> list[str]:
    """What stands in quotes, docstrings and the fixed parts of f-strings too;
    neighbours are one."""
    tree = ast.parse(path.read_text())
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = [part.value for part in node.values if isinstance(part, ast.Constant)]
            found.append("".join(map(str, parts)))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append(node.value)
    return found


def commands(text: str) -> set[str]:
    """The subcommands that code in `text` names:
    a line, a span, or what follows a path, `--` or a colon."""
    code = r"(?:^|[`/]|-- |: )dynts-batch ([a-z][\w-]*)"
    return set(re.findall(code, text, re.MULTILINE))


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_message_names_commands_that_exist_and_no_file_of_the_clone(path):
    for text in strings(path):
        assert commands(text) <= COMMANDS.keys(), text
        assert not re.search(r"\b(jobs|configs)/\w", text), text


@pytest.mark.parametrize("path", TEXTS, ids=lambda p: p.name)
def test_a_page_names_commands_configurations_and_jobs_that_exist(path):
    text = path.read_text()
    assert commands(text) <= COMMANDS.keys()
    for name in re.findall(r"dynts-batch (?:run|plan|frontier) ([a-z][\w/-]*)(?![\w.-])", text):
        assert name in shipped_configs()
    for job in re.findall(r"jobs/\w+\.py", text):
        assert (ROOT / job).is_file()
