"""Tiny random checkpoints of the architectures the engine promises, made on the spot."""

from pathlib import Path

import torch
from transformers import (
    GptOssConfig,
    GptOssForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from dynts_batch.lab.tokenizer import build_tokenizer

ARCHITECTURES = ("llama", "qwen2", "qwen3", "gpt_oss")


def make_tiny_model(architecture: str, folder: Path) -> Path:
    """Save a tiny random model with the embedded model's tokenizer, and return its folder."""
    tokenizer = build_tokenizer()
    common = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None,
        "initializer_range": 0.2,  # peaked enough that two logits are never nearly equal
    }
    torch.manual_seed(sum(architecture.encode()))
    model: PreTrainedModel
    match architecture:
        case "llama":
            model = LlamaForCausalLM(LlamaConfig(**common))
        case "qwen2":
            sliding = ["full_attention", "sliding_attention", "full_attention"]
            model = Qwen2ForCausalLM(
                Qwen2Config(
                    **common, use_sliding_window=True, sliding_window=24, layer_types=sliding
                )
            )
        case "qwen3":
            model = Qwen3ForCausalLM(Qwen3Config(**common, head_dim=32))
        case "gpt_oss":
            config = GptOssConfig(
                **common, head_dim=16, sliding_window=24, num_local_experts=4, num_experts_per_tok=2
            )
            config.rope_parameters = {"rope_type": "default", "rope_theta": 10000.0}
            model = GptOssForCausalLM(config)
            for layer in model.model.layers:
                torch.nn.init.normal_(layer.self_attn.sinks)
    path = folder / architecture
    model.eval().save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path
