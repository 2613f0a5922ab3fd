"""Packed experts compute what transformers' own do,
and a token the same bits whatever shares its batch."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Glm4MoeConfig,
    Glm4MoeForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    PreTrainedModel,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from dynts_batch.engine.model.experts import pack_experts
from dynts_batch.engine.model.packing import pack_linears

TINY = {
    "vocab_size": 100,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_experts_per_tok": 3,
}
MODELS: dict[str, Callable[[Path], PreTrainedModel]] = {
    "gpt_oss": lambda folder: AutoModelForCausalLM.from_pretrained(folder),
    "mixtral": lambda _: MixtralForCausalLM(MixtralConfig(**TINY, num_local_experts=5)),
    "qwen3": lambda _: Qwen3MoeForCausalLM(
        Qwen3MoeConfig(**TINY, num_experts=8, moe_intermediate_size=32)
    ),
    "glm4": lambda _: Glm4MoeForCausalLM(
        Glm4MoeConfig(**TINY, n_routed_experts=8, moe_intermediate_size=32, first_k_dense_replace=0)
    ),
}


@pytest.fixture
def num_threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch has no oneDNN here")
@pytest.mark.parametrize(
    ("name", "num_threads"),
    [
        *((name, 1) for name in MODELS),
        ("qwen3", 2),
        *(pytest.param(name, 2, marks=pytest.mark.long) for name in MODELS.keys() - {"qwen3"}),
    ],
    indirect=["num_threads"],
)
@torch.inference_mode()
def test_a_token_has_the_same_bits_alone_and_among_others(
    name: str, num_threads: int, tiny_model_dirs: dict[str, Path]
) -> None:
    """Plain products gave every token of a batch other bits than alone,
    and once in dozens of runs another next token."""
    torch.manual_seed(0)
    model = MODELS[name](tiny_model_dirs["gpt_oss"]).eval().requires_grad_(False)
    token_ids = torch.arange(60).view(4, 15)
    expected = model(token_ids).logits
    model = pack_experts(pack_linears(model))
    assert not any("experts" in key for key in model.state_dict() if key.endswith("proj"))
    torch.testing.assert_close(model(token_ids).logits, expected, atol=1e-4, rtol=1e-4)
    block = model.model.layers[0].mlp
    inputs = torch.randn(90, 1, 64)
    together = outputs(block(inputs))
    for size in (1, 2, 3, 5, 16, 77):
        apart = torch.cat([outputs(block(some)) for some in inputs.split(size)])
        assert torch.equal(apart, together)


def outputs(found: torch.Tensor | tuple[torch.Tensor, ...]) -> torch.Tensor:
    """gpt-oss's block also returns what its router said."""
    return found[0] if isinstance(found, tuple) else found
