"""Thoughts: sparsity as defined, types by thresholds, and a file that comes back or is refused."""

from pathlib import Path

import pytest
import torch

from dynts_batch.errors import ConfigError
from dynts_batch.kvcache.model_id import ModelId
from dynts_batch.kvcache.policies.thinkv.thoughts import (
    EXECUTION,
    REASONING,
    TRANSITION,
    Thoughts,
    load_thoughts,
    save_thoughts,
    sparsity,
)


def slow_sparsity(groups: list[list[list[float]]]) -> float:
    """Of one query's logits, [K, G, S]: maximum over the group, softmax, mean over the groups,
    share below 1% of the top."""
    rows = []
    for group in groups:
        largest = torch.tensor([max(column) for column in zip(*group, strict=True)])
        rows.append(largest.softmax(dim=0).tolist())
    mean = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
    return sum(prob < 0.01 * max(mean) for prob in mean) / len(mean)


def test_sparsity_is_the_definitions_over_what_is_visible() -> None:
    torch.manual_seed(0)
    logits = 4 * torch.randn(3, 2, 3, 4, 50)
    logits[:, :, :, :, 37:] = -torch.inf
    found = sparsity(logits)
    for row in range(3):
        for query in range(4):
            expected = slow_sparsity(logits[row, :, :, query, :37].tolist())
            assert found[row, query].item() == pytest.approx(expected)


def test_the_sparsest_is_a_transition_and_the_densest_an_execution() -> None:
    thoughts = Thoughts(layers=(1,), low=0.4, high=0.7)
    types = thoughts.classify(torch.tensor([0.1, 0.4, 0.5, 0.7, 0.8]))
    assert types.tolist() == [EXECUTION, REASONING, REASONING, REASONING, TRANSITION]


@pytest.mark.parametrize("thoughts", [Thoughts((3, 0), 0.25, 0.5), Thoughts()])
def test_what_is_saved_is_loaded(thoughts: Thoughts, tmp_path: Path) -> None:
    path = tmp_path / "thoughts.safetensors"
    save_thoughts(path, thoughts, model=ModelId("org/model"), notes={"num_traces": "7"})
    assert load_thoughts(path, model=ModelId("/elsewhere/model"), num_layers=4) == thoughts


@pytest.mark.parametrize(("model", "num_layers"), [("org/other", 4), ("org/model", 3)])
def test_another_models_file_is_refused(model: str, num_layers: int, tmp_path: Path) -> None:
    path = tmp_path / "thoughts.safetensors"
    save_thoughts(path, Thoughts((3, 0), 0.25, 0.5), model=ModelId("org/model"), notes={})
    with pytest.raises(ConfigError, match=r"must be made for model .* got one for model org/model"):
        load_thoughts(path, model=ModelId(model), num_layers=num_layers)


def test_a_damaged_file_and_impossible_thresholds_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "thoughts.safetensors"
    path.write_bytes(b"not one")
    with pytest.raises(ConfigError, match="cannot read"):
        load_thoughts(path, model=ModelId("org/model"), num_layers=4)
    with pytest.raises(ConfigError, match="low <= high"):
        Thoughts((0,), low=0.6, high=0.5)
