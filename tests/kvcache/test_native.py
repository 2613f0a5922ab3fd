"""Whatever C there is compiles without a warning, on machines that have a compiler."""

import shutil
import subprocess
from pathlib import Path

import pytest

from dynts_batch.kvcache import native

COMPILER = shutil.which("cc") or shutil.which("gcc")


@pytest.mark.skipif(COMPILER is None, reason="no C compiler here")
@pytest.mark.parametrize("source", sorted(native.FOLDER.glob("*.c")), ids=lambda path: path.name)
def test_c_code_compiles_without_a_warning(source: Path, tmp_path: Path) -> None:
    command = [
        COMPILER,
        *native.FLAGS,
        "-Wall",
        "-Werror",
        source,
        "-o",
        tmp_path / "out.so",
        "-lm",
    ]
    built = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
