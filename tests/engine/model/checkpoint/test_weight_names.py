"""Laws of checkpoints: what a model lacks is said before any weight is read,
with how many and one name."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dynts_batch.config import Config, MemoryConfig, ModelConfig, PolicyConfig
from dynts_batch.engine.factory import check_engine
from dynts_batch.engine.model.loader import load_model
from dynts_batch.engine.model.resolved import resolve_model
from dynts_batch.errors import ConfigError

Weights = dict[str, torch.Tensor]


def changed(source: Path, folder: Path, change: Callable[[Weights], Weights]) -> Config:
    shutil.copytree(source, folder, dirs_exist_ok=True)
    weights = change(load_file(folder / "model.safetensors"))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    model = ModelConfig(name=str(folder), device="cpu")
    return Config(model, policy=PolicyConfig("full"), memory=MemoryConfig(max_seqs=1))


def without(part: str) -> Callable[[Weights], Weights]:
    return lambda weights: {key: value for key, value in weights.items() if part not in key}


def compiled(weights: Weights) -> Weights:
    """As torch.compile names the parts of a model that it wraps."""
    return {f"_orig_mod.{key}": value for key, value in weights.items()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (compiled, r"none for 30 of 30, such as 'lm_head.weight'; its files hold 30 .*'_orig_mod"),
        (without("lm_head"), "none for 1 of 30, such as 'lm_head.weight'"),
        (
            without("layers.1."),
            r"none for 9 of 30, such as 'model.layers.1.input_layernorm.weight'",
        ),
        (
            lambda weights: weights | {"lm_head.weight": weights["lm_head.weight"][:-3].clone()},
            r"of the shapes that its config.json says, got others for 1 of 30, such as"
            r" 'lm_head.weight' of",
        ),
    ],
    ids=["compiled", "head", "layer", "vocabulary"],
)
def test_a_checkpoint_that_lacks_weights_is_refused_before_any_is_read(
    change: Callable[[Weights], Weights],
    message: str,
    tiny_model_dirs: dict[str, Path],
    tmp_path: Path,
) -> None:
    """transformers fills them with random numbers: the run ended well, and meant nothing."""
    config = changed(tiny_model_dirs["llama"], tmp_path / "model", change)
    with pytest.raises(ConfigError, match=message):
        check_engine(config, on_gpu=False)
    with pytest.raises(ConfigError, match=r"must hold all weights|size mismatch|mismatch"):
        load_model(resolve_model(config.model))


def test_a_checkpoint_with_more_weights_than_its_model_runs_with_a_warning(
    tiny_model_dirs: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def widen(weights: Weights) -> Weights:
        return weights | {"value_head.weight": torch.zeros(3)}

    config = changed(tiny_model_dirs["llama"], tmp_path / "model", widen)
    with caplog.at_level(logging.WARNING):
        check_engine(config, on_gpu=False)
    assert "weights that are not used: 1 that the model has no place for" in caplog.text
    assert "value_head.weight" in caplog.text


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gpt_oss"])
def test_all_weights_are_found_in_shards_too(
    architecture: str, tiny_model_dirs: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model_dirs[architecture], folder)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = {key: f"model-{n % 2 + 1:05}-of-00002.safetensors" for n, key in enumerate(weights)}
    for file in set(names.values()):
        part = {key: value for key, value in weights.items() if names[key] == file}
        save_file(part, folder / file, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": names}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    model = ModelConfig(name=str(folder), device="cpu")
    memory = MemoryConfig(max_seqs=1)
    check_engine(Config(model, policy=PolicyConfig("full"), memory=memory), on_gpu=False)
