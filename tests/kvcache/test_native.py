"""Whatever C there is compiles without a warning, on machines that have a compiler."""

import shutil
import subprocess
from pathlib import Path

import pytest
import torch

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


def test_a_machine_without_a_compiler_is_told_so_by_a_warning(monkeypatch, caplog):
    """It decodes at half the speed, and only a log at level INFO said why."""
    monkeypatch.setenv("PATH", "")
    native._library.cache_clear()
    try:
        assert not native.can_run(
            "decode_attention.c", torch.float32, torch.device("cpu"), native.VECTOR
        )
    finally:
        native._library.cache_clear()
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "no C compiler (cc or gcc) is on this machine" in record.getMessage()
