"""Which models the arena engine can run, as far as their configurations tell, without weights.

To refuse another kind of model, write a rule and add it to `RULES`.
"""

from collections.abc import Callable
from typing import NamedTuple

from transformers import MODEL_FOR_MASKED_LM_MAPPING, PretrainedConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from dynts_batch.engine.model.checkpoint.auto_class import auto_class
from dynts_batch.errors import ConfigError

#: Kinds of attention layers whose cache the arena can hold.
LAYER_TYPES = {"full_attention", "sliding_attention"}
#: Rotary embeddings whose frequencies follow the longest sequence of a batch.
CHANGING_ROPE_TYPES = {"dynamic", "longrope"}
#: What the arena attention does not compute: capped attention, latent keys and values, and those
#: that layers share.
UNSUPPORTED_KEYS = (
    "attn_logit_softcapping",
    "kv_lora_rank",
    "num_kv_shared_layers",
)

#: Types whose generation is more than forward passes, and how.
ODD_TYPES = {
    "moshi": "whose cache keeps a window of tokens while its attention sees all of them",
    "paligemma": "whose attention sees later tokens of a prompt too",
}


class Refusal(NamedTuple):
    """Ends of "model.name must {rule}, got 'a/model' {found}"."""

    rule: str
    found: str


def check_support(name: str, checkpoint: PretrainedConfig) -> None:
    """Check the part that reads and writes text, if the model also sees or hears.

    Raises: ConfigError with the words of the first rule that refuses the model `name`.
    """
    for rule in RULES:
        asked = (
            checkpoint
            if rule in (writes_text, of_one_mind)
            else checkpoint.get_text_config(decoder=True)
        )
        if (refusal := rule(asked)) is not None:
            raise ConfigError(f"model.name must {refusal.rule}, got {name!r} {refusal.found}")


def writes_text(checkpoint: PretrainedConfig) -> Refusal | None:
    # BERT and its kin also have a causal head, but read in both directions.
    is_encoder = type(checkpoint) in MODEL_FOR_MASKED_LM_MAPPING
    if auto_class(checkpoint) is not None and not is_encoder and not checkpoint.is_encoder_decoder:
        return None
    return Refusal("be a causal language model", f"of type {checkpoint.model_type!r}")


def of_one_mind(model_config: PretrainedConfig) -> Refusal | None:
    odd = ODD_TYPES.get(model_config.model_type)
    rule = "generate as in one causal pass"
    return None if odd is None else Refusal(rule, f"of type {model_config.model_type!r}, {odd}")


def same_heads(model_config: PretrainedConfig) -> Refusal | None:
    """The arena has one shape for all layers."""
    try:
        if model_config.num_attention_heads and model_config.num_hidden_layers:
            getattr(model_config, "head_dim", None)
            return None
    # No attention heads at all, or different ones in each layer.
    except (AttributeError, RuntimeError):
        pass
    rule = "have attention heads of one number and size in all layers"
    return Refusal(rule, f"of type {model_config.model_type!r}")


def attention_layers(model_config: PretrainedConfig) -> Refusal | None:
    unknown = set(getattr(model_config, "layer_types", None) or LAYER_TYPES) - LAYER_TYPES
    if not unknown:
        return None
    rule = f"have only {' or '.join(sorted(LAYER_TYPES))} layers"
    return Refusal(rule, f"with {', '.join(sorted(unknown))}")


def known_rope(model_config: PretrainedConfig) -> Refusal | None:
    known = {"default", *ROPE_INIT_FUNCTIONS}
    unknown = _rope_types(model_config) - known
    if not unknown:
        return None
    rule = f"have a rope_type that transformers knows ({', '.join(sorted(known))})"
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
    rule = "have plain grouped-query attention"
    return Refusal(rule, f"with {', '.join(f'{k}={getattr(model_config, k)}' for k in found)}")


#: In the order of the checks.
RULES: tuple[Callable[[PretrainedConfig], Refusal | None], ...] = (
    writes_text,
    attention_layers,
    of_one_mind,
    same_heads,
    known_rope,
    fixed_positions,
    plain_attention,
)


def _rope_types(model_config: PretrainedConfig) -> set[str]:
    """Kinds of rotary embedding. Some models have one per type of layer."""
    parameters = getattr(model_config, "rope_parameters", None) or {}
    groups = [parameters, *(group for group in parameters.values() if isinstance(group, dict))]
    return {str(group["rope_type"]) for group in groups if "rope_type" in group}
