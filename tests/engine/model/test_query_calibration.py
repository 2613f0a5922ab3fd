"""Queries are measured on any model whose RoPE turns halves of a head, and refused on others."""

from pathlib import Path

import pytest
import torch

from dynts_batch.config import ModelConfig
from dynts_batch.engine.model.calibration.queries import measure_queries
from dynts_batch.engine.model.calibration.text_pass import TextStep, read_text
from dynts_batch.engine.model.loader import LoadedModel, load_model
from dynts_batch.engine.model.resolved import resolve_model
from dynts_batch.errors import ConfigError
from dynts_batch.kvcache.query_stats import as_pairs


def loaded(folder: Path) -> LoadedModel:
    return load_model(resolve_model(ModelConfig(name=str(folder))))


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3", "gpt_oss"])
def test_the_query_that_is_foretold_for_a_lone_token_is_the_models_own(
    architecture: str, tiny_model_dirs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A text of one token has one query, which is its own mean:
    turned to any position it is what the model computes there."""
    model = loaded(tiny_model_dirs[architecture])
    monkeypatch.setattr(type(model.tokenizer), "encode", lambda *_, **__: [11])
    stats, step = measure_queries(read_text(model)), TextStep()
    place = torch.tensor([[29]])
    model.decoder(input_ids=torch.tensor([[11]]), position_ids=place, use_cache=False, kv_step=step)
    assert len(stats.layers) == model.config.num_hidden_layers
    for layer, (queries, _, rule) in step.found.items():
        expected = as_pairs(queries[:, 0])
        torch.testing.assert_close(
            stats.layers[layer].at(place)[0, 0], expected, atol=1e-4, rtol=1e-3
        )
        assert stats.layers[layer].rule.scale == rule.scale


def test_a_model_that_turns_otherwise_is_refused(
    tiny_model_dirs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frequencies that are not those by which it turns stand for any other rotary embedding."""
    model = loaded(tiny_model_dirs["llama"])
    buffers = [(name, buffer * 1.5) for name, buffer in model.decoder.named_buffers()]
    monkeypatch.setattr(model.decoder, "named_buffers", lambda: buffers)
    with pytest.raises(ConfigError, match="that foretells no queries"):
        measure_queries(read_text(model))
