"""Tiny random checkpoints of every decoder that the installed transformers knows.

Owns the sizes: one table by the names that configurations give them, and what single types want
beside it. Knows nothing about engines.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
)

from dynts_batch.engine.model.checkpoint.auto_class import auto_class
from dynts_batch.engine.model.files import model_path

_NAMES: dict[int, str] = {
    64: (
        "hidden_size d_model n_embd embedding_dim word_embed_proj_dim lru_width out_hidden_size"
        " embed_dim projection_dim image_token_embed_dim patch_embed_hidden_size hidden_size_global"
    ),
    96: (
        "intermediate_size ffn_dim decoder_ffn_dim encoder_ffn_dim ffn_hidden_size dim_ff dff"
        " d_inner"
    ),
    32: (
        "moe_intermediate_size shared_expert_intermediate_size shared_intermediate_size"
        " expert_ffn_hidden_size shared_experts_intermediate_size"
        " moe_shared_expert_intermediate_size intermediate_size_mlp dense_intermediate_size"
        " ple_embed_dim hc_lowrank image_size"
    ),
    4: (
        "num_hidden_layers n_layer n_layers num_layers decoder_layers num_decoder_layers"
        " num_blocks depth num_attention_heads n_head n_heads num_heads attention_heads"
        " decoder_attention_heads encoder_attention_heads num_encoder_attention_heads"
        " num_decoder_attention_heads swa_num_attention_heads linear_num_value_heads num_experts"
        " n_routed_experts num_local_experts moe_num_experts altup_num_inputs zero_expert_num"
        " index_n_heads linear_num_heads"
    ),
    2: (
        "num_key_value_heads num_kv_heads swa_num_key_value_heads linear_num_key_heads"
        " num_experts_per_tok num_experts_per_token moe_topk moe_k top_k_experts patch_size"
    ),
    16: (
        "head_dim d_head kv_channels dim_head swa_head_dim linear_key_head_dim"
        " linear_value_head_dim linear_head_dim attention_head_dim v_head_dim qk_head_dim"
        " index_head_dim global_head_dim kv_lora_rank q_lora_rank o_lora_rank"
        " hidden_size_per_layer_input"
    ),
    8: "rotary_dim qk_rope_head_dim qk_nope_head_dim",
    1: (
        "encoder_layers num_encoder_layers n_shared_experts num_shared_experts"
        " moe_num_shared_experts n_group topk_group num_expert_group first_k_dense_replace"
        " num_dense_layers max_window_layers"
    ),
    24: "sliding_window window_size sliding_window_size attention_window_size local_attention",
    512: (
        "max_position_embeddings n_positions max_seq_len n_ctx context_length max_target_positions"
    ),
    720: (
        "vocab_size vocab_size_per_layer_input decoder_vocab_size num_embeddings"
        " encoder_hash_byte_group_vocab"
    ),
    700: "unpadded_vocab_size",
}
#: By the name that a configuration gives it. Four layers show most patterns of layers.
SIZES = {name: size for size, names in _NAMES.items() for name in names.split()}
#: Scales that are 1 by default in a configuration and hardly ever in a real one.
SCALES = {
    "logit_scale": 0.3, "logits_scaling": 3.0, "embedding_multiplier": 2.0,
    "residual_multiplier": 0.7, "attention_multiplier": 0.2, "lm_head_multiplier": 0.5,
    "key_multiplier": 0.6,
}  # fmt: skip
#: What the rules between a type's keys want beside it.
SPECIAL: dict[str, dict[str, Any]] = {
    "dots3_note_text": {"num_key_value_heads": 4},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "mamba2": {"head_dim": 32},
    "zaya": {"num_experts_per_tok": 1},
    "longcat_flash": {"intermediate_size": 64},
    "ernie4_5_vl_moe_text": {"moe_intermediate_size": [32, 32]},
    "zamba2": {"num_hidden_layers": 54},
    # By default all of their layers are attention; the published ones have convolutions too.
    **{key: {"layer_types": 2 * ["conv", "full_attention"]} for key in ("lfm2", "lfm2_moe")},
    **{
        name: {
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e4,
                "mrope_section": [2, 3, 3],
            }
        }
        for name in [
            "qwen2_vl_text",
            "qwen2_5_vl_text",
            "qwen2_5_omni_text",
            "paddleocr_vl_text",
            "glm4v_text",
            "glm_ocr_text",
        ]
    },
    "glm4v_moe_text": {
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1e4,
            "mrope_section": [1, 1, 2],
            "partial_rotary_factor": 0.5,
        }
    },
}


class NotMadeError(Exception):
    """transformers could not make the type so small; the message says why."""


def types() -> Iterator[type[PretrainedConfig]]:
    """Of all that transformers takes for a causal language model,
    and of all others that hold one."""
    yield from dict.fromkeys((*MODEL_FOR_CAUSAL_LM_MAPPING, *MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING))


def save_tiny(cls: type[PretrainedConfig], folder: Path) -> None:
    """Configuration, tokenizer and random weights of a model of this type; where the sizes do not
    suit it, its default configuration alone.

    Raises: NotMadeError.
    """
    tokenizer = AutoTokenizer.from_pretrained(model_path("embedded"))
    tokenizer.save_pretrained(folder)
    end = tokenizer.eos_token_id
    ids = {"eos_token_id": end, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": end}
    torch.manual_seed(0)
    try:
        config = tiny_config(cls, ids)
        config.save_pretrained(folder)
        model = auto_class(config).from_config(config)
    # Rules between keys that the table does not know, packages that are not installed.
    except Exception as error:
        if not (folder / "config.json").exists():
            with suppress(StrictDataclassError):  # some defaults break their own rules
                cls().save_pretrained(folder)
        reason = " ".join(str(error).split())
        raise NotMadeError(f"{type(error).__name__}: {reason}"[:200]) from error
    randomise(model)
    model.eval().save_pretrained(folder)


def load_tiny(cls: type[PretrainedConfig], folder: Path) -> PreTrainedModel:
    config = cls.from_pretrained(folder)
    return auto_class(config).from_pretrained(folder, dtype=torch.float32)


def tiny_config(cls: type[PretrainedConfig], ids: Mapping[str, Any]) -> PretrainedConfig:
    """With the parts of a composite one as tiny."""
    fields = {field.name for field in dataclasses.fields(cls) if field.init}
    given = {**SIZES, **SCALES, **ids}
    keys = {name: value for name, value in given.items() if name in fields}
    default = cls()
    for name in getattr(cls, "sub_configs", {}):
        part = getattr(default, name, None)
        if isinstance(part, PretrainedConfig):
            keys[name] = tiny_config(type(part), ids)
    return cls(**{**keys, **SPECIAL.get(cls.model_type, {})})


def randomise(model: PreTrainedModel) -> None:
    """Also what starts as 0 or 1: biases, norms, sinks.
    So steep that two logits are never nearly equal."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.2)
            else:
                parameter.add_(torch.randn_like(parameter) * 0.2)
