"""Whatever C there is compiles without a warning, on machines that have a compiler."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from dynts_batch.kvcache import native
from dynts_batch.kvcache.native import build

COMPILER = shutil.which("cc") or shutil.which("gcc")


@pytest.mark.skipif(COMPILER is None, reason="no C compiler here")
@pytest.mark.parametrize("source", sorted(build.FOLDER.glob("*.c")), ids=lambda path: path.name)
def test_c_code_compiles_without_a_warning(source: Path, tmp_path: Path) -> None:
    command = [
        COMPILER,
        *build.FLAGS,
        "-O2",  # enough for the warnings, in a fifth of the time
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
    build.library.cache_clear()
    try:
        assert not native.can_run("decode_attention.c", torch.float32, torch.device("cpu"))
    finally:
        build.library.cache_clear()
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "no C compiler (cc or gcc) is on this machine" in record.getMessage()


@pytest.fixture
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A new one for what is built."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    forget()
    yield tmp_path / "cache" / "dynts_batch"
    forget()


def forget() -> None:
    build.library.cache_clear()
    build._fingerprint.cache_clear()


@pytest.mark.skipif(COMPILER is None, reason="no C compiler here")
def test_it_is_built_once_for_all_processes_and_anew_for_other_sources_flags_or_processors(
    cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def built() -> list[str]:
        forget()
        assert build.library("rounding.c") is not None
        return sorted(path.name for path in cache_folder.iterdir())

    (first,) = built()
    written = (cache_folder / first).stat().st_mtime_ns
    assert built() == [first]
    assert (cache_folder / first).stat().st_mtime_ns == written
    monkeypatch.setattr(build, "FLAGS", (*build.FLAGS, "-g0"))
    assert len(built()) == 2
    run = build._run
    monkeypatch.setattr(
        build, "_run", lambda *command: run(*command) + ("#define __NEW__" * ("-E" in command))
    )
    assert len(built()) == 3


@pytest.mark.skipif(COMPILER is None, reason="no C compiler here")
@pytest.mark.parametrize("content", [b"", b"no code at all"])
def test_a_damaged_file_in_the_cache_is_built_again(content: bytes, cache_folder: Path) -> None:
    assert build.library("rounding.c") is not None
    (kept,) = cache_folder.iterdir()
    whole = kept.read_bytes()
    kept.unlink()  # the loaded one must not change
    kept.write_bytes(content)
    forget()
    assert build.library("rounding.c") is not None
    assert [path.read_bytes() for path in cache_folder.iterdir()] == [whole]


@pytest.mark.skipif(COMPILER is None, reason="no C compiler here")
def test_without_a_cache_folder_every_process_builds_its_own(cache_folder: Path, caplog) -> None:
    cache_folder.parent.mkdir()
    cache_folder.write_text("a file stands where the folder should be")
    assert build.library("rounding.c") is not None
    assert not caplog.records
