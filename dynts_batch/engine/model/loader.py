"""Loads a Hugging Face decoder, plugged into the arena attention, and its companions."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from dynts_batch.engine.model.chat.template import ChatTemplate
from dynts_batch.engine.model.checkpoint.auto_class import auto_class
from dynts_batch.engine.model.checkpoint.positions import num_positions
from dynts_batch.engine.model.checkpoint.quantization import loading_options, quant_method
from dynts_batch.engine.model.checkpoint.skeleton import loading_errors, make_skeleton
from dynts_batch.engine.model.checkpoint.stored_tensors import stored_tensors
from dynts_batch.engine.model.checkpoint.weight_names import loaded_weights, refuse_missing
from dynts_batch.engine.model.experts import pack_experts
from dynts_batch.engine.model.fusing import fuse_layers
from dynts_batch.engine.model.head import head_of
from dynts_batch.engine.model.int8.weight import Int8Weight
from dynts_batch.engine.model.logits_check import check_logits
from dynts_batch.engine.model.packing import PackedWeight, pack_linears
from dynts_batch.engine.model.resolved import ResolvedModel
from dynts_batch.engine.model.think_tags import THINK, ThinkTags
from dynts_batch.kvcache.predictor import load_predictor


@dataclass(frozen=True)
class LoadedModel:
    """`decoder` gives final-norm hidden states. `head` turns them into logits."""

    decoder: PreTrainedModel
    head: nn.Module
    tokenizer: PreTrainedTokenizerBase
    stop_token_ids: frozenset[int]
    config: PretrainedConfig
    device: torch.device
    think_tags: ThinkTags = THINK
    identity: Mapping[str, Any] = field(default_factory=dict)
    chat: ChatTemplate | None = None
    num_positions: int | None = None
    """Size of the table of positions; None if positions are computed."""


def load_model(resolved: ResolvedModel) -> LoadedModel:
    """Load the weights.

    An error for lack of memory is raised as it is.

    Raises: ConfigError if the model cannot be loaded or lacks weights, or if the engine does not
    reproduce its logits. Another machine would not help.
    """
    name = resolved.settings.name
    with loading_errors(f"model.name: cannot load {name!r}"):
        model, found = _read(resolved)
    refuse_missing(name, loaded_weights(found), num_weights=len(model.state_dict()))
    with loading_errors(f"model.name: {name!r} has no decoder with an output layer"):
        decoder = _decoder(model, resolved)
    is_int8 = resolved.settings.weights == "int8"
    kind = Int8Weight if is_int8 else PackedWeight
    pack_experts(fuse_layers(pack_linears(model.eval().requires_grad_(False), kind)), kind)
    head = head_of(model, decoder, resolved.config.hidden_size)
    check_logits(name, model, decoder, head, rounds_inputs=is_int8)
    return LoadedModel(
        decoder=decoder,
        head=head,
        tokenizer=resolved.tokenizer,
        stop_token_ids=resolved.stop_token_ids,
        config=resolved.config,
        device=resolved.device,
        think_tags=resolved.think_tags,
        identity=resolved.identity,
        chat=resolved.chat,
        num_positions=num_positions(decoder, resolved.config),
    )


def _read(resolved: ResolvedModel) -> tuple[PreTrainedModel, Mapping[str, Any]]:
    """The model, and what transformers reports about its weights."""
    checkpoint, files = resolved.checkpoint, resolved.files
    how = {"dtype": resolved.dtype, "output_loading_info": True}
    is_plain = quant_method(checkpoint) is None
    if (tensors := stored_tensors(files) if is_plain else None) is not None:
        skeleton = make_skeleton(files.path, checkpoint, trust_remote_code=files.trust_remote_code)
        return type(skeleton).from_pretrained(None, config=checkpoint, state_dict=tensors, **how)
    is_gguf = files.gguf is not None
    made_by = auto_class(checkpoint)
    assert made_by is not None
    return made_by.from_pretrained(
        **files.source,
        **({"config": checkpoint} if is_gguf else {}),  # its RoPE is not transformers' own reading
        **loading_options(checkpoint, is_gguf=is_gguf),
        **how,
        use_safetensors=None if is_gguf else True,
    )


def _decoder(model: PreTrainedModel, resolved: ResolvedModel) -> PreTrainedModel:
    """The part that reads and writes text, on its device. Parts for pictures or sound stay where
    they are."""
    if resolved.checkpoint is resolved.config:
        return model.to(resolved.device).base_model
    decoder = model.get_decoder().to(resolved.device)
    model.get_output_embeddings().to(resolved.device)
    return decoder


def load_companions(resolved: ResolvedModel) -> list[object]:
    """What was made for the model and the policy needs, on the model's device.

    Raises: ConfigError if it was made for another model.
    """
    path, thoughts = resolved.companions.predictor, resolved.companions.told_apart
    if path is None:
        return [thoughts]
    predictor = load_predictor(path, model=resolved.id, hidden_size=resolved.config.hidden_size)
    return [thoughts, pack_linears(predictor.to(device=resolved.device, dtype=torch.float32))]
