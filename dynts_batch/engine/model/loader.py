"""Loads a Hugging Face decoder, plugged into the arena attention, and what was made for it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from dynts_batch.engine.attention.steps import register_attention
from dynts_batch.engine.model.experts import pack_experts
from dynts_batch.engine.model.logits_check import check_logits
from dynts_batch.engine.model.packing import pack_linears
from dynts_batch.engine.model.resolved import ResolvedModel
from dynts_batch.engine.model.think_tags import THINK, ThinkTags
from dynts_batch.errors import ConfigError
from dynts_batch.kvcache.predictor import load_predictor


@dataclass(frozen=True)
class LoadedModel:
    """`decoder` gives final-norm hidden states, `head` turns them into logits."""

    decoder: PreTrainedModel
    head: nn.Module
    tokenizer: PreTrainedTokenizerBase
    stop_token_ids: frozenset[int]
    config: PretrainedConfig
    device: torch.device
    think_tags: ThinkTags = THINK
    identity: Mapping[str, Any] = field(default_factory=dict)


def load_model(resolved: ResolvedModel) -> LoadedModel:
    """Load the weights.

    Raises: ConfigError where the model cannot be loaded, or the engine does not reproduce its logits.
    """
    name = resolved.settings.name
    try:
        model = AutoModelForCausalLM.from_pretrained(
            **resolved.files.source,
            dtype=resolved.dtype,
            attn_implementation=register_attention(),
            use_safetensors=True,
        )
    except (OSError, ValueError) as error:
        raise ConfigError(f"model.name: cannot load {name!r}: {error}") from None
    model = pack_experts(pack_linears(model.to(resolved.device).eval().requires_grad_(False)))
    check_logits(name, model)
    return LoadedModel(
        decoder=model.base_model,
        head=model.get_output_embeddings(),
        tokenizer=resolved.tokenizer,
        stop_token_ids=_stop_token_ids(model, resolved.tokenizer),
        config=model.config,
        device=resolved.device,
        think_tags=resolved.think_tags,
        identity=resolved.identity,
    )


def load_companions(resolved: ResolvedModel) -> list[object]:
    """What was made for the model and the policy needs, on the model's device.

    Raises: ConfigError where it was made for another model.
    """
    path, thoughts = resolved.companions.predictor, resolved.companions.told_apart
    if path is None:
        return [thoughts]
    predictor = load_predictor(path, model=resolved.id, hidden_size=resolved.config.hidden_size)
    return [thoughts, pack_linears(predictor.to(device=resolved.device, dtype=torch.float32))]


def _stop_token_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    generation_config = model.generation_config
    found = generation_config.eos_token_id if generation_config is not None else None
    if found is None:
        found = tokenizer.eos_token_id
    return frozenset([found] if isinstance(found, int) else found or ())
