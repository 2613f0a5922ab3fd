"""The layout's law: imports go down, siblings do not meet, a third-party package has its owners.
No file, folder or line is too large."""

import ast
from collections import Counter
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "dynts_batch"
SOURCES = {".py", ".c", ".h", ".js", ".css", ".html", ".sh", ".yaml"}
MAX_FILES, MAX_LINES, MAX_COLUMNS = 16, 300, 100

FLOORS = {
    "errors": 0, "config": 0, "config_rules": 0, "config_file": 0, "config_reference": 0,
    "exit_status": 0, "records": 0,
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
    "huggingface_hub": {"data", "engine", "benchmarks"},
    "pyarrow": {"data", "runner", "report", "training", "lab", "benchmarks"},
    "pynvml": {"telemetry"},
    "psutil": {"telemetry"},
    "vllm": {"engine", "benchmarks"},
    "math_verify": {"grading"},
    "matplotlib": {"report"},
    "jinja2": {"report"},
    "transformers": {"engine", "training", "lab", "benchmarks"},
    "torch": {"kvcache", "engine", "training", "lab", "benchmarks", "runner"},
}


def place(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> list[str]:
    """Full names of all that is imported, wherever the statement stands."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
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


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def owner(name: str, modules: set[str]) -> str:
    """The module of which `name` is a part, or is itself; else nothing."""
    while name and name not in modules:
        name = name.rpartition(".")[0]
    return name


def circle(imported: dict[str, set[str]]) -> list[str]:
    """Names that import each other in turn, the first one again at the end;
    none where there is no circle."""
    try:
        TopologicalSorter(imported).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_no_two_files_import_each_other_not_even_through_others() -> None:
    """Six files of engine/ could only be read together: those imports stood within functions."""
    modules = {module_name(path) for path in MODULES}
    imported = {
        module_name(path): {owner(name, modules) for name in imports(path)} for path in MODULES
    }
    assert circle(imported) == []


@pytest.mark.parametrize("through", [["b"], ["b", "c", "d"]])
def test_a_circle_is_found_however_long_it_is(through: list[str]) -> None:
    around = ["a", *through]
    imported = {name: {"e", after} for name, after in zip(around, [*through, "a"], strict=True)}
    assert set(circle(imported)) == set(around)


def sources() -> list[Path]:
    folders = [PACKAGE, *(ROOT / name for name in ("jobs", "cluster", "configs", "tests"))]
    return [path for folder in folders for path in folder.rglob("*") if path.suffix in SOURCES]


def test_a_folder_is_seen_at_one_glance() -> None:
    counts = Counter(str(path.parent.relative_to(PACKAGE.parent)) for path in sources())
    assert {folder: n for folder, n in counts.items() if n > MAX_FILES} == {}


def test_a_file_is_read_in_one_sitting() -> None:
    lengths = {
        path: len(path.read_text().splitlines())
        for path in sources()
        if ROOT / "tests" not in path.parents
    }
    assert {str(path): n for path, n in lengths.items() if n > MAX_LINES} == {}


def is_too_wide(line: str) -> bool:
    """A row of a table in Markdown cannot be wrapped, nor can one long word, such as an address."""
    if len(line) <= MAX_COLUMNS or line.startswith("|"):
        return False
    return max(map(len, line.split())) <= MAX_COLUMNS


def test_a_line_is_seen_whole() -> None:
    names = ("dynts_batch", "jobs", "cluster", "configs", "tests", "findings")
    read = SOURCES | {".md", ".toml"}
    found = [path for name in names for path in (ROOT / name).rglob("*") if path.suffix in read]
    found += [ROOT / "README.md", ROOT / "pyproject.toml", ROOT / "cluster" / "Dockerfile"]
    lines = {path: path.read_text(encoding="utf-8").splitlines() for path in found}
    wide = [f"{path}: {line}" for path in lines for line in lines[path] if is_too_wide(line)]
    assert wide == []
