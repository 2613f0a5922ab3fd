"""What is installed: the wheel works where the clone is not, and declares all that it imports."""

import ast
import os
import re
import subprocess
import sys
import tomllib
import venv
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from dynts_batch.shipped import shipped_configs

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

#: Imported only where they are asked for: a GPU's kernels, a reader of models, an engine, peers of
#: the benchmark, a second test process.
OPTIONAL = {"triton", "gguf", "vllm", "kvpress", "openvino", "openvino_genai", "xdist"}
#: Not imported by name, or optional: fsspec finds it, moto serves it, and the tests call these.
UNIMPORTED = {"gguf", "hatchling", "mypy", "pytest-timeout", "pytest-xdist", "ruff", "triton"}


def declared(*extras: str) -> set[str]:
    """Names of the distributions that the project and `extras` ask for, in their normal form."""
    lists = [PROJECT["dependencies"], *(PROJECT["optional-dependencies"][x] for x in extras)]
    return {_normal(re.match(r"[\w.-]+", line)[0]) for lines in lists for line in lines}


def imported(*folders: str) -> set[str]:
    """The distributions of all that the Python files in `folders` import,
    the standard library and our own aside."""
    names = set()
    ours = [
        path for folder in ("tests", "jobs", "cluster") for path in (ROOT / folder).rglob("*.py")
    ]
    own = {"dynts_batch", *(path.stem for path in ours)}
    for path in (path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add(str(node.module).partition(".")[0])
    names -= sys.stdlib_module_names | own | OPTIONAL | {"None"}
    known = packages_distributions()
    return {_normal(known.get(name, [name])[0]) for name in names}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_what_is_imported_is_declared_and_what_is_declared_is_imported():
    assert imported("dynts_batch", "jobs", "cluster") == declared()


def test_what_the_tests_import_is_declared():
    used = imported("tests")
    assert used <= declared() | declared("test")
    assert declared("test") - declared() <= used | UNIMPORTED


def test_libraries_whose_private_parts_are_used_have_an_upper_bound():
    for name in ("torch", "transformers", "ray"):
        (line,) = [d for d in PROJECT["dependencies"] if re.match(rf"{name}\b", d)]
        assert re.search(r">=[\d.]+,<[\d.]+", line), line


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    pytest.importorskip("hatchling", reason="hatchling builds the wheel")
    out = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The scripts of a new environment with the wheel.
    It sees the packages of this one, and not the clone."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder)
    (packages,) = folder.glob("lib/python*/site-packages")
    # A folder named in a .pth file adds its packages, but not what its own .pth files add.
    (packages / "seen.pth").write_text("\n".join(p for p in sys.path if "site-packages" in p))
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python")]
    install = [*pip, "install", "-q", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    return folder / "bin"


def test_the_wheel_holds_the_package_its_types_and_the_configurations(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {"dynts_batch/py.typed", "dynts_batch/lab/reasoner/model.safetensors"} <= names
    assert {f"dynts_batch/configs/{name}.yaml" for name in shipped_configs()} <= names
    tops = {name.partition("/")[0] for name in names}
    assert {top.partition("-")[0] for top in tops} == {"dynts_batch"}


@pytest.mark.ray
def test_the_installed_command_runs_reports_and_exports_in_an_empty_folder(installed, tmp_path):
    def call(program: str, *arguments: str) -> str:
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        done = subprocess.run(
            [installed / program, *arguments],
            cwd=tmp_path,
            env=environment | {"PATH": f"{installed}:{environment['PATH']}"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    where = call("python", "-c", "import dynts_batch; print(dynts_batch.__file__)")
    assert Path(where).is_relative_to(installed.parent)
    assert "quickstart" in call("dynts-batch", "config").split()
    limits = ("input.limit=3", "run.shard_rows=3", "workers.max=1", "memory.max_seqs=3")
    assert "runs/quickstart" in call("dynts-batch", "run", "quickstart", *limits)
    assert "finished" in call("dynts-batch", "status", "runs/quickstart")
    assert "right (pass@1)" in call("dynts-batch", "report", "runs/quickstart", "--html", "r.html")
    call("dynts-batch", "export", "runs/quickstart", "out", "--format", "jsonl")
    rows = [row for path in (tmp_path / "out").iterdir() for row in path.read_text().splitlines()]
    assert len(rows) == 3
    assert {path.name for path in tmp_path.iterdir()} == {"runs", "r.html", "out"}
