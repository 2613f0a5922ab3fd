"""Random eviction: the control that every scored method has to beat."""

from dataclasses import dataclass

import torch

from dynts_batch.kvcache.counter_rng import uniform
from dynts_batch.kvcache.policies import register
from dynts_batch.kvcache.policy import Policy, Slots


@register("random")
@dataclass(frozen=True)
class Random(Policy):
    """Keeps candidates uniformly at random, drawn independently per layer and KV head (arXiv 2609.03430).

    Draws are a function of the sequence, its length, the layer, the head and the token, so a row's choice depends on
    neither its batch-mates nor a restart.
    """

    per_head = True

    def score(self, slots: Slots) -> torch.Tensor:
        rows, layers, heads, _ = slots.positions.shape
        place = torch.arange(layers * heads, device=slots.keys.device).view(layers, heads, 1)
        # One key per (sequence, eviction, layer, head), then one draw per token.
        draw = uniform(slots.keys.view(rows, 1), slots.seq_len.view(rows, 1))
        key = (draw * 2.0**53).long().view(rows, 1, 1, 1) + (place << 53)
        return uniform(key, slots.positions.long())
