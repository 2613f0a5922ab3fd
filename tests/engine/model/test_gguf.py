"""Laws of models in one GGUF file: they are found by their path,
and what reads them is named where it is missing."""

import os
from pathlib import Path

import pytest
import torch

from dynts_batch.config import ModelConfig
from dynts_batch.engine.model import files
from dynts_batch.engine.model.loader import load_model
from dynts_batch.engine.model.resolved import resolve_model
from dynts_batch.errors import ConfigError


def test_a_gguf_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must be the path of a GGUF file"):
        resolve_model(ModelConfig(name=str(tmp_path / "model.gguf")))


def test_the_packages_that_read_a_gguf_file_are_named_where_they_are_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    monkeypatch.setattr(files, "find_spec", lambda _: None)
    with pytest.raises(
        ConfigError, match=r"gguf and accelerate: pip install 'dynts-batch\[gguf\]'"
    ):
        resolve_model(ModelConfig(name=str(tmp_path / "model.gguf")))


@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_weights_of_a_gguf_file_are_plain_numbers_in_the_dtype_asked_for() -> None:
    """Recent transformers leave them packed where they find a kernel for that."""
    path = os.environ.get("DYNTS_GGUF")
    if path is None:
        pytest.skip("no model: set DYNTS_GGUF to a GGUF file")
    loaded = load_model(resolve_model(ModelConfig(path, dtype="bfloat16", device="cpu")))
    tensors = {*loaded.decoder.parameters(), *loaded.decoder.buffers()}
    assert loaded.decoder.dtype == torch.bfloat16
    assert all(tensor.is_floating_point() for tensor in tensors)
    assert loaded.chat is not None
