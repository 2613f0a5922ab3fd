"""Random eviction: the control that every scored method has to beat."""

from dataclasses import dataclass

import torch

from dynts_batch.kvcache.policies import register
from dynts_batch.kvcache.policy import HeadwisePolicy
from dynts_batch.kvcache.view import LayerSlots


@register("random")
@dataclass(frozen=True)
class Random(HeadwisePolicy):
    """Keeps candidates uniformly at random, drawn independently per layer and KV head (arXiv
    2609.03430).

    A draw is a function of the sequence, its length, the layer, the head and the token. So a row's
    choice depends on neither its batch-mates nor a restart.
    """

    def score_layer(self, layer: LayerSlots) -> torch.Tensor:
        return layer.draws()
