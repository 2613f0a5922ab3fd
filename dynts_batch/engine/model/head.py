"""From final hidden states to logits, as the model itself computes them."""

import copy
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import MoeModelOutputWithPast

from dynts_batch.engine.model.checkpoint.skeleton import MODEL_ERRORS


class OwnHead(nn.Module):
    """The model's own forward pass behind its decoder. Some models scale or cap their
    logits there."""

    def __init__(self, model: PreTrainedModel, decoder: nn.Module) -> None:
        super().__init__()
        shell = copy.copy(model)
        shell._modules = dict(model._modules)
        shell._modules[_child_with(model, decoder)] = _Given()
        self._shell = shell

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Logits [..., vocabulary] of hidden states [..., hidden_size]."""
        flat = hidden_states.reshape(1, -1, hidden_states.shape[-1])
        logits = self._shell(inputs_embeds=flat, use_cache=False).logits
        return logits.reshape(*hidden_states.shape[:-1], logits.shape[-1])


class _Given(nn.Module):
    """Takes the decoder's place: it takes hidden states as embeddings, and returns them."""

    def forward(self, *_: Any, inputs_embeds: torch.Tensor, **__: Any) -> MoeModelOutputWithPast:
        return MoeModelOutputWithPast(last_hidden_state=inputs_embeds)


@torch.inference_mode()
def head_of(model: PreTrainedModel, decoder: nn.Module, hidden_size: int) -> nn.Module:
    """The bare output layer, if the model does nothing else to its logits."""
    bare = model.get_output_embeddings()
    weight = next(decoder.parameters())
    some = torch.randn(1, 3, hidden_size, generator=torch.Generator().manual_seed(0))
    some = some.to(weight.device, weight.dtype)
    try:
        own = OwnHead(model, decoder)
        return bare if torch.equal(own(some), bare(some)) else own
    # It asks for more than hidden states. If it also does more with them, the check of the logits
    # will fail.
    except MODEL_ERRORS:
        return bare


def _child_with(model: PreTrainedModel, decoder: nn.Module) -> str:
    """The name of the model's own part that is `decoder`, or contains it."""
    for name, child in model.named_children():
        if any(module is decoder for module in child.modules()):
            return name
    raise LookupError("the decoder is no part of the model")
