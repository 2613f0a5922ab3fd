"""Linear layers with pre-packed weights, for decoding on a CPU.

oneDNN, which comes with torch, multiplies a few rows by a packed matrix about twice as fast as by a plain one, and gives
each row the same bits whatever the number of rows: a sequence does not depend on its batch-mates. Knows no model: it
replaces `torch.nn.Linear`, wherever it stands.
"""

from typing import TypeVar

import torch
from torch import nn

Model = TypeVar("Model", bound=nn.Module)


class PackedLinear(nn.Module):
    """A linear layer whose weight is kept in oneDNN's own layout only."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.bias = linear.bias
        self._multiply = torch.ops.mkldnn._linear_pointwise.default
        self._packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach())

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if inputs.numel() == self.in_features:
            # A lone row would be summed in another order than a row among others.
            pair = inputs.expand(2, *inputs.shape)
            return self._multiply(pair, self._packed, self.bias, "none", [], "")[0]
        return self._multiply(inputs, self._packed, self.bias, "none", [], "")


def pack_linears(model: Model) -> Model:
    """Replace every plain linear layer of `model`, which runs on a CPU and is not trained; returns the model.

    Where torch has no oneDNN, or none for the weights' type, they stay.
    """
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Linear and _can_pack(child.weight):
                setattr(module, name, PackedLinear(child))
    return model


def _can_pack(weight: torch.Tensor) -> bool:
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if weight.dtype == torch.bfloat16:
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return weight.dtype == torch.float32
