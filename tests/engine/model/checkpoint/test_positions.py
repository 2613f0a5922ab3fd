"""Laws of learned positions: no token is read at a position that the model has none for."""

from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel, LlamaConfig

from dynts_batch.config import Config, MemoryConfig, ModelConfig, PolicyConfig, SamplingConfig
from dynts_batch.engine import Engine
from dynts_batch.engine.factory import check_engine
from dynts_batch.engine.model.checkpoint.positions import trained_positions
from dynts_batch.errors import ConfigError
from dynts_batch.records import Request

FULL, MEMORY = PolicyConfig("full"), MemoryConfig(max_seqs=2, max_prompt_tokens=64)


@pytest.fixture
def gpt2(tiny_model_dirs: dict[str, Path], tmp_path: Path) -> ModelConfig:
    """64 learned positions."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=720,
        n_positions=64,
        n_embd=32,
        n_layer=1,
        n_head=2,
        eos_token_id=1,
        bos_token_id=1,
    )
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny_model_dirs["llama"]).save_pretrained(tmp_path)
    return ModelConfig(name=str(tmp_path), device="cpu")


def test_more_new_tokens_than_learned_positions_are_refused(gpt2: ModelConfig) -> None:
    """Workers died of an IndexError, one after the other."""
    sampling = SamplingConfig(max_new_tokens=100)
    with pytest.raises(ConfigError, match=r"room for a prompt in the 64 positions .* got 100"):
        check_engine(Config(gpt2, sampling=sampling, policy=FULL, memory=MEMORY), on_gpu=False)


def test_a_prompt_that_would_go_on_past_the_learned_positions_is_an_error_row(
    gpt2: ModelConfig,
) -> None:
    sampling = SamplingConfig(temperature=0.0, max_new_tokens=24)
    engine = Engine.load(gpt2, FULL, sampling, MEMORY)
    prompts = {"fits": [5] * 40, "not": [5] * 41}
    requests = [Request(name, prompt_token_ids=ids) for name, ids in prompts.items()]
    found = {completion.request_id: completion for completion in engine.generate(requests)}
    assert found["fits"].finish_reason in ("stop", "length")
    assert found["not"].error_type == "PromptTooLongError"
    assert "64 positions that the model has learned, got 65" in str(found["not"].error_message)


@pytest.mark.parametrize(
    ("settings", "positions"),
    [
        ({"max_position_embeddings": 4096}, 4096),
        (
            {
                "max_position_embeddings": 32,
                "rope_parameters": {
                    "rope_type": "yarn",
                    "rope_theta": 1e4,
                    "factor": 4.0,
                    "original_max_position_embeddings": 32,
                },
            },
            128,
        ),
    ],
)
def test_positions_for_which_a_model_was_trained_count_what_its_rope_adds(
    settings: dict, positions: int
) -> None:
    assert trained_positions(LlamaConfig(**settings)) == positions
