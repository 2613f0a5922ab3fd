"""Key norm: tokens with short keys stay."""

from dataclasses import dataclass

import torch

from dynts_batch.kvcache.policies import register
from dynts_batch.kvcache.policy import HeadwisePolicy
from dynts_batch.kvcache.view import LayerSlots


@register("knorm")
@dataclass(frozen=True)
class KNorm(HeadwisePolicy):
    """Keeps the candidates whose keys have the smallest L2 norm, per layer and KV head.

    Such keys tend to get much attention (Devoto et al. 2024, arXiv 2406.11430), so no attention has
    to be computed.
    """

    def score_layer(self, layer: LayerSlots) -> torch.Tensor:
        return -layer.keys.float().norm(dim=-1)
