"""The predictor and its file: what was saved is what is loaded, what was made for another model is
refused, and a place is read only by a predictor that was made to."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dynts_batch.errors import ConfigError
from dynts_batch.kvcache.model_id import ModelId
from dynts_batch.kvcache.predictor import (
    PLACE_SIZE,
    ImportancePredictor,
    Inputs,
    PredictorMetadata,
    load_predictor,
    place_of,
    save_predictor,
)


def saved(path: Path, inputs: Inputs = "state+place") -> ImportancePredictor:
    torch.manual_seed(0)
    predictor = ImportancePredictor(16, inputs)
    if inputs == "state+place":
        predictor.place_mean.copy_(torch.tensor([200.0, 5.0, 60.0]))
        predictor.place_scale.copy_(torch.tensor([100.0, 1.0, torch.inf]))
    save_predictor(
        path, predictor, PredictorMetadata(ModelId("org/model"), 16, inputs), {"overlap@20": "0.7"}
    )
    return predictor


@pytest.mark.parametrize("inputs", ["state", "state+place"])
def test_a_loaded_predictor_scores_like_the_saved_one_and_scores_are_positive(
    tmp_path: Path, inputs: Inputs
) -> None:
    predictor = saved(tmp_path / "p.safetensors", inputs)
    loaded = load_predictor(tmp_path / "p.safetensors", model=ModelId("org/model"), hidden_size=16)
    hidden_states = torch.randn(4, 7, 16)
    places = place_of(torch.randint(60, 500, (4, 7)), torch.tensor(60))
    assert torch.equal(loaded(hidden_states, places), predictor(hidden_states, places))
    assert loaded(hidden_states, places).shape == (4, 7)
    assert (loaded(hidden_states, places) > 0).all()


def test_the_shape_is_the_papers() -> None:
    shapes = [tuple(p.shape) for p in ImportancePredictor(16, "state").parameters()]
    assert shapes == [(32, 16), (8, 32), (1, 8)]


def test_a_place_is_known_when_the_token_is_written() -> None:
    places = place_of(torch.tensor([[0, 59, 60, 159]]), torch.tensor([[60]]))
    numbers = torch.tensor([1.0, 1.0, 1.0, 100.0])
    expected = torch.stack([numbers, numbers.log(), torch.full((4,), 60.0)], dim=-1)[None]
    assert places.shape[-1] == PLACE_SIZE
    torch.testing.assert_close(places, expected)


def test_only_a_predictor_that_reads_places_tells_them_apart_and_none_beyond_its_range(
    tmp_path: Path,
) -> None:
    hidden_states = torch.randn(1, 16).expand(4, 16)
    near = place_of(torch.tensor([70, 300, 10**6, 2 * 10**6]), torch.tensor(60))
    paper, ours = (saved(tmp_path / "p", inputs) for inputs in ("state", "state+place"))
    assert len(set(paper(hidden_states, near).tolist())) == 1
    first, second, third, fourth = ours(hidden_states, near).tolist()
    assert first != second != third == fourth
    # What was the same in all of the training, here the prompt's length, tells nothing.
    other = place_of(torch.tensor([510]), torch.tensor(500))
    assert ours(hidden_states[:1], other) == ours(hidden_states[:1], near[:1])


def test_a_file_from_before_there_were_places_reads_the_state_alone(tmp_path: Path) -> None:
    predictor = saved(tmp_path / "new.safetensors", "state")
    header = {"format": "dynts-predictor-1", "model": "org/model", "hidden_size": "16"}
    weights = {name: tensor.clone() for name, tensor in predictor.state_dict().items()}
    save_file(weights, tmp_path / "old.safetensors", metadata=header)
    old = load_predictor(tmp_path / "old.safetensors", model=ModelId("org/model"), hidden_size=16)
    assert old.inputs == "state"
    save_file(weights, tmp_path / "odd.safetensors", metadata={**header, "inputs": "smell"})
    with pytest.raises(ConfigError, match=r"read one of state, state\+place, got 'smell'"):
        load_predictor(tmp_path / "odd.safetensors", model=ModelId("org/model"), hidden_size=16)


@pytest.mark.parametrize(
    ("model", "hidden_size", "message"),
    [
        ("org/other", 16, "must be made for model"),
        ("org/model", 32, "with hidden_size 32, got one for model org/model with hidden_size 16"),
    ],
)
def test_a_predictor_for_another_model_is_refused(
    tmp_path: Path, model: str, hidden_size: int, message: str
) -> None:
    saved(tmp_path / "p.safetensors")
    with pytest.raises(ConfigError, match=message):
        load_predictor(tmp_path / "p.safetensors", model=ModelId(model), hidden_size=hidden_size)


def test_one_for_another_commit_says_which_revision_it_is_for(tmp_path: Path) -> None:
    """Any commit to the model's repository, to its README too, is one."""
    made_for, now = ModelId("org/model", "a1" * 20), ModelId("org/model", "b2" * 20)
    metadata = PredictorMetadata(made_for, 16, "state")
    save_predictor(tmp_path / "p", ImportancePredictor(16, "state"), metadata, {})
    with pytest.raises(ConfigError, match=f"set model.revision={made_for.commit}, .*or make"):
        load_predictor(tmp_path / "p", model=now, hidden_size=16)


def test_files_that_are_no_predictor_are_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.safetensors").write_bytes(b"not a safetensors file")
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    for name, message in (
        ("missing", "cannot read"),
        ("broken", "cannot read"),
        ("other", "must have format"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_predictor(tmp_path / f"{name}.safetensors", model=ModelId("m"), hidden_size=16)
