"""Experts with pre-packed weights, for a CPU: a token's result does not depend on its batch-mates.

The batch decides which tokens share an expert's product. MKL, which multiplies plain matrices, sums
a few rows in another order than many. So experts multiply by oneDNN's packed matrices, as linear
layers do in packing.py, and routers get many rows. Knows no model: experts are the modules that
transformers allows to replace, and routers are those beside them with their own plain matrix.
"""

from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import nn

from dynts_batch.engine.model.packing import PackedWeight

#: Rows of zeros that join a router's tokens. Its products are small, and every thread of MKL needs
#: some rows.
JOINING_ROWS = 64

Model = TypeVar("Model", bound=nn.Module)


class PackedExperts(nn.Module):
    """Does what `experts` does, and takes its weights.

    `experts` is a module that transformers' experts interface may compute.
    """

    def __init__(self, experts: Any, kind: type[PackedWeight]) -> None:
        super().__init__()
        self._experts = experts
        self._up = _pack(experts, "gate_up_proj" if experts.has_gate else "up_proj", kind)
        self._down = _pack(experts, "down_proj", kind)

    def forward(
        self,
        hidden_states: torch.Tensor,
        top_k_index: torch.Tensor,
        top_k_weights: torch.Tensor,
    ) -> torch.Tensor:
        """Sums [tokens, hidden_size] over the experts `top_k_index` [tokens, k] of each token."""
        found = hidden_states.new_zeros(*top_k_index.shape, hidden_states.shape[-1])
        for number in top_k_index.unique().tolist():
            token, place = (top_k_index == number).nonzero(as_tuple=True)
            output = self._output(number, hidden_states[token])
            found[token, place] = (output * top_k_weights[token, place, None]).to(found.dtype)
        return found.sum(dim=1)

    def _output(self, number: int, inputs: torch.Tensor) -> torch.Tensor:
        experts = self._experts
        up = self._up[number].product(inputs, 0)
        inner = experts._apply_gate(up) if experts.has_gate else experts.act_fn(up)
        output = self._down[number].product(inner, 0)
        return experts.post_expert_norm(output) if experts.has_post_expert_norm else output


def pack_experts(model: Model, kind: type[PackedWeight] = PackedWeight) -> Model:
    """Pack the experts of `model`, if it has any, into weights of a kind, and return the model.

    The model runs on a CPU and is not trained. Experts whose weights the kind does not take stay
    as they are.
    """
    for parent in list(model.modules()):
        children: dict[str, Any] = dict(parent.named_children())
        experts = {name for name, child in children.items() if _is_packable(child, kind)}
        for name in experts:
            setattr(parent, name, PackedExperts(children[name], kind))
        for name in children.keys() - experts if experts else ():
            matrix = children[name]._parameters.get("weight")
            if matrix is not None and matrix.dim() == 2:
                children[name].register_forward_pre_hook(_join)
                children[name].register_forward_hook(_leave)
    return model


def _is_packable(module: Any, kind: type[PackedWeight]) -> bool:
    # transformers gives this attribute to all experts that its interface can compute.
    return hasattr(module, "_is_expert_parallel") and kind.takes(module.down_proj)


def _pack(experts: Any, name: str, kind: type[PackedWeight]) -> list[PackedWeight]:
    """Pack each expert, and free its plain weights."""
    weights, biases = getattr(experts, name), getattr(experts, f"{name}_bias", None)
    packed = []
    for number, weight in enumerate(weights.mT if experts.is_transposed else weights):
        width_out, width_in = weight.shape
        linear = nn.Linear(width_in, width_out, bias=biases is not None, device="meta")
        linear.weight = nn.Parameter(weight, requires_grad=False)
        if biases is not None:
            linear.bias = nn.Parameter(biases[number], requires_grad=False)
        packed.append(kind([linear]))
    delattr(experts, name)
    return packed


def _join(router: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    hidden_states, *rest = args
    return F.pad(hidden_states.flatten(0, -2), (0, 0, 0, JOINING_ROWS)), *rest


def _leave(router: nn.Module, args: Any, output: Any) -> Any:
    """`output`: one tensor [tokens, ...] or several."""
    if isinstance(output, torch.Tensor):
        return output[:-JOINING_ROWS]
    return tuple(part[:-JOINING_ROWS] for part in output)
