"""DynTS as published: what is stored after every selection, of all tokens so far, follows from B,
W and r."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoTokenizer, LlamaConfig

from dynts_batch.config import MemoryConfig, SamplingConfig
from dynts_batch.engine import Engine
from dynts_batch.engine.model.loader import LoadedModel
from dynts_batch.kvcache.arena import KVArena
from dynts_batch.kvcache.layer_states import AttentionRule, LayerStates
from dynts_batch.kvcache.policies.dynts import DynTS
from dynts_batch.kvcache.predictor import ImportancePredictor
from dynts_batch.records import Request

#: arXiv 2601.18383, the throughput figure's stored/total tokens: B, W and r, then one ratio
#: a selection.
PUBLISHED = {
    "R1-Distill-Llama-8B": (5000, 2000, 0.3, [0.58, 0.41, 0.32, 0.26, 0.22, 0.19]),
    "R1-Distill-Qwen-7B": (5000, 2000, 0.4, [0.64, 0.47, 0.37, 0.31, 0.26, 0.23, 0.20]),
}


class FakeDecoder(nn.Module):
    """One layer, one head, random states."""

    dtype = torch.float32

    def forward(self, input_ids: torch.Tensor, *, kv_step: Any, **_: Any) -> SimpleNamespace:
        rows, length = input_ids.shape
        states = [torch.randn(rows, 1, length, 2) for _ in range(3)]
        rule = AttentionRule(1.0, None, None)
        return SimpleNamespace(
            last_hidden_state=kv_step.attend(LayerStates(0, *states, rule))[:, 0]
        )


class ThinkingHead(nn.Module):
    """Token 10, for ever: it never stops thinking."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        logits = hidden_states.new_zeros(*hidden_states.shape[:-1], 20)
        logits[..., 10] = 1.0
        return logits


def fake_model(folder: Path) -> LoadedModel:
    config = LlamaConfig(
        hidden_size=2, num_attention_heads=1, num_hidden_layers=1, num_key_value_heads=1
    )
    return LoadedModel(
        decoder=FakeDecoder(),  # type: ignore[arg-type]
        head=ThinkingHead(),
        tokenizer=AutoTokenizer.from_pretrained(folder),
        stop_token_ids=frozenset(),
        config=config,
        device=torch.device("cpu"),
    )


@pytest.mark.parametrize("scale", [10, pytest.param(1, marks=pytest.mark.long)])
@pytest.mark.parametrize("model", PUBLISHED)
def test_stored_over_total_at_every_selection_is_the_published_one(
    model: str, scale: int, tiny_model_dirs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a tenth of the size and in full, by the engine itself;
    the kept share counts the prompt, as in the reference code."""
    torch.manual_seed(0)
    budget, window, keep_ratio, published = PUBLISHED[model]
    budget, window, prompt_tokens = budget // scale, window // scale, 200 // scale
    policy = DynTS(budget=budget, window_size=window, keep_ratio=keep_ratio, prompt_in_ratio=True)
    ratios: list[float] = []
    evict = KVArena.evict

    def observe(
        arena: KVArena, lanes: list[int], kept_slots: torch.Tensor, retained_len: list[int]
    ) -> None:
        newest = int(arena.positions[lanes[0], 0, 0].max())
        ratios.append(kept_slots.shape[-1] / (newest + 1))
        evict(arena, lanes, kept_slots, retained_len)

    monkeypatch.setattr(KVArena, "evict", observe)
    num_selections, retained = len(published), window + int((budget - window) * keep_ratio)
    num_tokens = budget + (num_selections - 1) * (budget - retained)
    engine = Engine(
        fake_model(tiny_model_dirs["llama"]),
        policy,
        SamplingConfig(temperature=0.0, max_new_tokens=num_tokens - prompt_tokens + 2),
        MemoryConfig(max_seqs=1),
        [ImportancePredictor(2, "state")],
    )
    (completion,) = engine.generate([Request("a", prompt_token_ids=[5] * prompt_tokens)])
    assert [round(ratio, 2) for ratio in ratios] == published
    assert completion.peak_cache_len == budget
