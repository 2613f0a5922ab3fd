"""Linear layers with pre-packed weights, for decoding on a CPU.

oneDNN, which comes with torch, multiplies a few rows by a packed matrix about twice as fast as by a
plain one. It also gives each row the same bits whatever the number of rows, so a sequence does not
depend on its batch-mates. Layers that read the same input become one product, with the same bits
again. Knows no model: it replaces `torch.nn.Linear` everywhere.
"""

import logging
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import nn

from dynts_batch.engine.out_of_memory import return_memory

Model = TypeVar("Model", bound=nn.Module)

logger = logging.getLogger(__name__)

#: Layers of one module that read the same tensor, by the names that transformers gives them.
SIBLINGS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))


class PackedWeight:
    """Weights of linear layers that read the same input, one below the other, only in oneDNN's
    layout."""

    def __init__(self, linears: Sequence[nn.Linear]) -> None:
        self.in_features = linears[0].in_features
        self._widths = [linear.out_features for linear in linears]
        self._bias = None
        if any(linear.bias is not None for linear in linears):
            zeros = [linear.weight.new_zeros(linear.out_features) for linear in linears]
            self._bias = torch.cat(
                [
                    zero if linear.bias is None else linear.bias.detach()
                    for zero, linear in zip(zeros, linears, strict=True)
                ]
            )
        self._pack([linear.weight.detach() for linear in linears])
        # The newest input, until every layer has had its part of the product.
        self._inputs: torch.Tensor | None = None
        self._parts: list[torch.Tensor | None] = []

    @staticmethod
    def takes(weight: torch.Tensor) -> bool:
        """Whether oneDNN can multiply by such a weight here."""
        if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
            return False
        if weight.dtype == torch.bfloat16:
            return torch.ops.mkldnn._is_mkldnn_bf16_supported()
        return weight.dtype == torch.float32

    def product(self, inputs: torch.Tensor, index: int) -> torch.Tensor:
        """The output of layer `index`. Its siblings' outputs are kept until they are asked for."""
        if len(self._widths) == 1:
            return self._product(inputs)
        if self._inputs is not inputs or self._parts[index] is None:
            self._inputs = inputs
            self._parts = [*self._product(inputs).split(self._widths, -1)]
        part, self._parts[index] = self._parts[index], None
        if not any(other is not None for other in self._parts):
            self._inputs = None
        assert part is not None
        return part

    def _pack(self, weights: Sequence[torch.Tensor]) -> None:
        weight = weights[0] if len(weights) == 1 else torch.cat([*weights])
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight)
        self._multiply = torch.ops.mkldnn._linear_pointwise.default

    def _product(self, inputs: torch.Tensor) -> torch.Tensor:
        if inputs.numel() == self.in_features:
            # A lone row would be summed in another order than a row among others.
            pair = inputs.expand(2, *inputs.shape)
            return self._multiply(pair, self._packed, self._bias, "none", [], "")[0]
        return self._multiply(inputs, self._packed, self._bias, "none", [], "")


class PackedLinear(nn.Module):
    """A linear layer whose weight is part of a packed one."""

    def __init__(self, linear: nn.Linear, weight: PackedWeight, index: int) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self._weight, self._index = weight, index
        #: Type and shape of the weight, for code that asks. The numbers are packed.
        self.weight = linear.weight.to("meta")

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self._weight.product(inputs, self._index)


def pack_linears(model: Model, kind: type[PackedWeight] = PackedWeight) -> Model:
    """Replace every plain linear layer of `model` by weights of a kind, and return the model.

    The model runs on a CPU and is not trained. Layers whose weights the kind does not take stay as
    they are.
    """
    first = next(model.parameters())
    if first.device.type == "cpu" and first.dtype == torch.bfloat16 and not kind.takes(first):
        logger.warning(
            "torch multiplies bfloat16 slowly on this CPU: model.dtype=float32 is faster in"
            " batches, with twice the memory, and model.weights=int8 several times as fast on a"
            " CPU with AVX2"
        )
    # No list of the layers themselves: each one's numbers are freed as soon as they are packed.
    for module in [module for module in model.modules() if type(module) is not nn.Linear]:
        linears = {
            name: child
            for name, child in module.named_children()
            if type(child) is nn.Linear and kind.takes(child.weight)
        }
        for names in _groups(linears):
            weight = kind([linears[name] for name in names])
            for index, name in enumerate(names):
                setattr(module, name, PackedLinear(linears.pop(name), weight, index))
            return_memory()
    return model


def _groups(linears: dict[str, nn.Linear]) -> list[tuple[str, ...]]:
    """The names of `linears`, siblings together."""
    groups = [
        names
        for names in SIBLINGS
        if linears.keys() >= set(names)
        and len({(linears[name].in_features, linears[name].weight.dtype) for name in names}) == 1
    ]
    grouped = {name for names in groups for name in names}
    return groups + [(name,) for name in linears if name not in grouped]
