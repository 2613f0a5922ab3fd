"""Which models the arena engine can run, as far as their configurations tell: everything that needs no weights to refuse.

To refuse another kind of model, write a rule and name it in `RULES`.
"""

from collections.abc import Callable
from typing import NamedTuple

from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    PretrainedConfig,
)

from dynts_batch.errors import ConfigError

#: Kinds of attention layers whose cache the arena can hold.
LAYER_TYPES = {"full_attention", "sliding_attention"}
#: Rotary embeddings whose frequencies follow the longest sequence of a batch.
CHANGING_ROPE_TYPES = {"dynamic", "longrope"}
#: What the arena attention does not compute: capped logits, and keys and values in a latent space or shared by layers.
UNSUPPORTED_KEYS = (
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "kv_lora_rank",
    "num_kv_shared_layers",
)


class Refusal(NamedTuple):
    """Ends of "model.name must {rule}, got 'a/model' {found}"."""

    rule: str
    found: str


def check_support(name: str, model_config: PretrainedConfig) -> None:
    """Raises: ConfigError with what the first rule says that refuses the model `name`."""
    for rule in RULES:
        if (refusal := rule(model_config)) is not None:
            raise ConfigError(f"model.name must {refusal.rule}, got {name!r} {refusal.found}")


def causal(model_config: PretrainedConfig) -> Refusal | None:
    # BERT and its kin have a causal head too, but read both ways.
    is_encoder = type(model_config) in MODEL_FOR_MASKED_LM_MAPPING
    if not is_encoder and type(model_config) in MODEL_FOR_CAUSAL_LM_MAPPING:
        return None
    return Refusal("be a causal language model", f"of type {model_config.model_type!r}")


def attention_layers(model_config: PretrainedConfig) -> Refusal | None:
    unknown = set(getattr(model_config, "layer_types", None) or LAYER_TYPES) - LAYER_TYPES
    if not unknown:
        return None
    rule = f"have only {' or '.join(sorted(LAYER_TYPES))} layers"
    return Refusal(rule, f"with {', '.join(sorted(unknown))}")


def fixed_positions(model_config: PretrainedConfig) -> Refusal | None:
    """Keys are stored after RoPE, and a row must not depend on its batch-mates' lengths."""
    changing = _rope_types(model_config) & CHANGING_ROPE_TYPES
    if not changing:
        return None
    rule = "have positions that do not change with the length of the batch"
    return Refusal(rule, f"with rope_type {', '.join(sorted(changing))}")


def plain_attention(model_config: PretrainedConfig) -> Refusal | None:
    found = [key for key in UNSUPPORTED_KEYS if getattr(model_config, key, None)]
    if not found:
        return None
    rule = "have plain grouped-query attention and uncapped logits"
    return Refusal(rule, f"with {', '.join(f'{k}={getattr(model_config, k)}' for k in found)}")


#: In the order in which they are asked.
RULES: tuple[Callable[[PretrainedConfig], Refusal | None], ...] = (
    causal,
    attention_layers,
    fixed_positions,
    plain_attention,
)


def _rope_types(model_config: PretrainedConfig) -> set[str]:
    """Kinds of rotary embedding; some models have one for each type of layer."""
    parameters = getattr(model_config, "rope_parameters", None) or {}
    groups = [parameters, *(group for group in parameters.values() if isinstance(group, dict))]
    return {str(group["rope_type"]) for group in groups if "rope_type" in group}
