"""The predictor's file: what was saved is what is loaded, and what was made for another model is refused."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dynts_batch.errors import ConfigError
from dynts_batch.kvcache.predictor import (
    ImportancePredictor,
    PredictorMetadata,
    load_predictor,
    save_predictor,
)


def saved(path: Path) -> ImportancePredictor:
    torch.manual_seed(0)
    predictor = ImportancePredictor(16)
    save_predictor(
        path, predictor, PredictorMetadata("org/model", "main", 16), {"overlap@20": "0.7"}
    )
    return predictor


def test_a_loaded_predictor_scores_like_the_saved_one_and_scores_are_positive(
    tmp_path: Path,
) -> None:
    predictor = saved(tmp_path / "p.safetensors")
    loaded = load_predictor(tmp_path / "p.safetensors", model="org/model", hidden_size=16)
    hidden_states = torch.randn(4, 7, 16)
    assert torch.equal(loaded(hidden_states), predictor(hidden_states))
    assert loaded(hidden_states).shape == (4, 7)
    assert (loaded(hidden_states) > 0).all()


def test_the_shape_is_the_papers() -> None:
    shapes = [tuple(p.shape) for p in ImportancePredictor(16).parameters()]
    assert shapes == [(32, 16), (8, 32), (1, 8)]


@pytest.mark.parametrize(
    ("model", "hidden_size", "message"),
    [
        ("org/other", 16, "must be made for model"),
        ("org/model", 32, "with hidden_size 32, got model org/model with hidden_size 16"),
    ],
)
def test_a_predictor_for_another_model_is_refused(
    tmp_path: Path, model: str, hidden_size: int, message: str
) -> None:
    saved(tmp_path / "p.safetensors")
    with pytest.raises(ConfigError, match=message):
        load_predictor(tmp_path / "p.safetensors", model=model, hidden_size=hidden_size)


def test_a_local_copy_of_the_model_is_the_same_model(tmp_path: Path) -> None:
    saved(tmp_path / "p.safetensors")
    load_predictor(tmp_path / "p.safetensors", model="/models/model/", hidden_size=16)


def test_files_that_are_no_predictor_are_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.safetensors").write_bytes(b"not a safetensors file")
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    for name, message in (
        ("missing", "cannot read"),
        ("broken", "cannot read"),
        ("other", "must have format"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_predictor(tmp_path / f"{name}.safetensors", model="m", hidden_size=16)
