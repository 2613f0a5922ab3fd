"""Laws of loading: a model that the engine would run wrongly is refused,
most of them before any weight is read."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoTokenizer,
    CohereConfig,
    CohereForCausalLM,
    GptOssConfig,
    GptOssForCausalLM,
    PreTrainedModel,
    StableLmConfig,
    StableLmForCausalLM,
)

from dynts_batch.config import Config, ModelConfig, PolicyConfig
from dynts_batch.engine.attention import steps as attention
from dynts_batch.engine.model.loader import load_model
from dynts_batch.engine.model.resolved import resolve_model
from dynts_batch.errors import ConfigError
from dynts_batch.kvcache.layer_states import AttentionRule
from dynts_batch.runner.worker.feed import Feed


def test_a_model_that_is_no_causal_language_model_is_refused_before_loading_weights(
    tmp_path: Path,
) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(ConfigError, match=r"must be a causal language model, got .*'vit'"):
        resolve_model(ModelConfig(name=str(tmp_path)))
    with pytest.raises(
        ConfigError, match="must be 'embedded', the path of a Hugging Face model or a hub id"
    ):
        resolve_model(ModelConfig(name=str(tmp_path / "nowhere")))
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ConfigError, match=r"must be a causal language model, got .*'bert'"):
        resolve_model(ModelConfig(name=str(tmp_path)))
    (tmp_path / "config.json").write_text('{"model_type": "mamba"}')
    with pytest.raises(ConfigError, match="attention layers"):
        resolve_model(ModelConfig(name=str(tmp_path)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model_type": "gemma2"}, "attn_logit_softcapping=50.0"),
        ({"model_type": "deepseek_v3"}, "kv_lora_rank=512"),
        (
            {
                "model_type": "phi3",
                "hidden_size": 64,
                "num_attention_heads": 4,
                "pad_token_id": 0,
                "original_max_position_embeddings": 16,
                "rope_parameters": {
                    "rope_type": "longrope",
                    "rope_theta": 10000.0,
                    "short_factor": [1.0] * 8,
                    "long_factor": [2.0] * 8,
                },
            },
            "rope_type longrope",
        ),
        (
            {
                "model_type": "llama",
                "rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0},
            },
            "rope_type dynamic",
        ),
    ],
    ids=lambda value: value["model_type"] if isinstance(value, dict) else "",
)
def test_a_model_that_the_arena_cannot_serve_is_refused_before_loading_weights(
    tmp_path: Path, settings: dict, message: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ConfigError, match=message):
        resolve_model(ModelConfig(name=str(tmp_path)))


ONE_LAYER = {
    "vocab_size": 720,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}


def saved_with_tokenizer(model: PreTrainedModel, tokenizer_dir: Path, folder: Path) -> ModelConfig:
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tokenizer_dir).save_pretrained(folder)
    return ModelConfig(name=str(folder), device="cpu")


def test_a_model_that_changes_its_logits_after_the_head_does_so_in_the_engine(
    tiny_model_dirs: dict[str, Path], tmp_path: Path
) -> None:
    """Cohere and Granite scale their logits:
    it was refused, and the bare head would have drawn other tokens."""
    torch.manual_seed(0)
    config = CohereConfig(**ONE_LAYER, logit_scale=0.1)
    saved = saved_with_tokenizer(CohereForCausalLM(config), tiny_model_dirs["llama"], tmp_path)
    loaded = load_model(resolve_model(saved))
    some = torch.randn(3, 32)
    bare = loaded.decoder.embed_tokens.weight
    torch.testing.assert_close(loaded.head(some), some @ bare.T * 0.1)


def test_a_model_whose_layers_pass_nothing_on_to_their_attention_is_refused(
    tiny_model_dirs: dict[str, Path], tmp_path: Path
) -> None:
    """StableLM and Nemotron ended in a TypeError."""
    config = StableLmConfig(**ONE_LAYER, num_key_value_heads=2)
    saved = saved_with_tokenizer(StableLmForCausalLM(config), tiny_model_dirs["llama"], tmp_path)
    with pytest.raises(ConfigError, match=r"does not fit the KV arena: .* 'kv_step'"):
        load_model(resolve_model(saved))


def decode_from(first: int, asked, keys, values):
    """A decode kernel of one lane that looks at all slots from `first` on."""
    seen = slice(first, int(asked.last_slots[0]) + 1)
    states = (asked.states, keys[:, :, seen], values[:, :, seen])
    return attention.attend_masked(*states, None, asked.rule)


def attend_causal_without_window(query, key, value, rule):
    everything = AttentionRule(rule.scale, None, rule.sinks)
    return ATTEND_CAUSAL(query, key, value, everything)


ATTEND_CAUSAL = attention.attend_causal


@pytest.mark.parametrize(
    ("architecture", "name", "damaged"),
    [
        ("llama", "fused_decode", lambda *_: partial(decode_from, 1)),
        # The first query stands at the first key, which is right for the first chunk alone.
        ("llama", "causal_lower_right", lambda *_: None),
        ("gpt_oss", "fused_decode", lambda *_: partial(decode_from, 0)),
        ("gpt_oss", "attend_causal", attend_causal_without_window),
    ],
    ids=["decoding", "chunks", "window of decoding", "window of a prompt"],
)
def test_what_attends_wrongly_on_this_machine_is_found_when_a_model_is_loaded(
    architecture: str,
    name: str,
    damaged: Any,
    tiny_model_dirs: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only the first chunk of a prompt was compared, and nothing that decodes."""
    config = ModelConfig(name=str(tiny_model_dirs[architecture]), device="cpu")
    monkeypatch.setattr(attention, name, damaged)
    with pytest.raises(ConfigError, match="must reproduce the logits"):
        load_model(resolve_model(config))


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("out of memory")]
)
def test_memory_that_runs_out_in_the_check_is_no_fault_of_the_model(
    error: Exception, tiny_model_dirs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model was said not to fit the arena;
    a worker that sees what it is says which settings must leave room."""

    def attend(*_: Any) -> torch.Tensor:
        raise error

    monkeypatch.setattr(attention, "attend_causal", attend)
    model = ModelConfig(name=str(tiny_model_dirs["llama"]), device="cpu")
    with pytest.raises(type(error), match="out of memory"):
        load_model(resolve_model(model))
    with pytest.raises(ConfigError, match=r"memory\.kv_gib and memory\.max_seqs must leave room"):
        Feed(Config(model, policy=PolicyConfig("full")), num_threads=1)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3", "gpt_oss"])
def test_a_model_that_the_engine_reproduces_is_loaded_in_any_dtype(
    tiny_model_dirs: dict[str, Path], architecture: str, dtype: str
) -> None:
    name = str(tiny_model_dirs[architecture])
    config = ModelConfig(name=name, device="cpu", dtype=dtype)  # type: ignore[arg-type]
    loaded = load_model(resolve_model(config))
    assert loaded.decoder.dtype == getattr(torch, dtype)


def deep_mixture(folder: Path, tokenizer_dir: Path, **settings: Any) -> ModelConfig:
    """Random weights in bfloat16, of which rounding sends many a token to other experts."""
    config = GptOssConfig(
        vocab_size=720,
        hidden_size=128,
        intermediate_size=128,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        sliding_window=32,
        num_experts_per_tok=4,
        **settings,
    )
    config.rope_parameters = {"rope_type": "default", "rope_theta": 10000.0}
    torch.manual_seed(0)
    saved = saved_with_tokenizer(GptOssForCausalLM(config), tokenizer_dir, folder)
    return replace(saved, dtype="bfloat16")


@pytest.mark.parametrize(
    "settings",
    [
        {"num_hidden_layers": 6, "num_local_experts": 16, "initializer_range": 0.2},
        {"num_hidden_layers": 16, "num_local_experts": 32, "initializer_range": 0.04},
    ],
    ids=["steep", "deep"],
)
def test_a_mixture_that_rounding_alone_changes_more_is_loaded(
    settings: dict, tiny_model_dirs: dict[str, Path], tmp_path: Path
) -> None:
    """The engine is right, as float32 shows; such models were refused at more than 5%."""
    config = deep_mixture(tmp_path, tiny_model_dirs["llama"], **settings)
    load_model(resolve_model(replace(config, dtype="float32")))
    load_model(resolve_model(config))


def test_a_mixture_in_half_precision_that_attends_wrongly_is_refused(
    tiny_model_dirs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"num_hidden_layers": 6, "num_local_experts": 16, "initializer_range": 0.02}
    config = deep_mixture(tmp_path, tiny_model_dirs["llama"], **settings)
    load_model(resolve_model(config))
    monkeypatch.setattr(attention, "fused_decode", lambda *_: partial(decode_from, 1))
    with pytest.raises(ConfigError, match="must reproduce the logits"):
        load_model(resolve_model(config))
