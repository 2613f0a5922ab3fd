"""The layout's law: imports go down, siblings do not meet, and a third-party package has its owners."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "dynts_batch"

FLOORS = {
    "errors": 0, "config": 0, "config_rules": 0, "config_file": 0, "exit_status": 0, "records": 0,
    "shipped": 0,
    "kvcache": 1, "data": 1, "telemetry": 1, "grading": 1, "testing": 1,
    "engine": 2, "report": 2,
    "training": 3, "lab": 3, "benchmarks": 3,
    "runner": 4,
    "cli": 5, "__main__": 6,
}  # fmt: skip

#: The only places that may import a third-party package; `transformers` also knows its tokenizers.
OWNERS = {
    "ray": {"runner"},
    "omegaconf": {"config_file"},
    "datasets": {"data"},
    "fsspec": {"data"},
    "huggingface_hub": {"data", "engine"},
    "pyarrow": {"data", "runner", "report", "training", "lab", "benchmarks"},
    "pynvml": {"telemetry"},
    "psutil": {"telemetry"},
    "vllm": {"engine"},
    "math_verify": {"grading"},
    "matplotlib": {"report"},
    "jinja2": {"report"},
    "transformers": {"engine", "training", "lab", "benchmarks"},
    "torch": {"kvcache", "engine", "training", "lab", "benchmarks", "runner"},
}


def place(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.append(str(node.module))
            if node.module == "dynts_batch":
                found += [f"dynts_batch.{alias.name}" for alias in node.names]
    return found


MODULES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_down_and_packages_stay_with_their_owner(path: Path) -> None:
    if path == PACKAGE / "__init__.py":
        assert not imports(path), "nothing happens on import of the package"
        return
    here = place(path)
    for name in imports(path):
        top, *rest = name.split(".")
        if top == "dynts_batch":
            there = rest[0] if rest else here
            # The modules of the ground floor are one place.
            below = FLOORS[there] < FLOORS[here] or FLOORS[there] == FLOORS[here] == 0
            assert there == here or below, f"{path}: {here} imports {there}"
        elif top in OWNERS:
            assert here in OWNERS[top], f"{path}: {top} belongs to {sorted(OWNERS[top])}"


def test_every_place_has_a_floor() -> None:
    assert {place(path) for path in MODULES} - {"__init__"} <= FLOORS.keys()
