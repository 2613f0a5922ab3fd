"""TOVA: the tokens that the newest query attends to stay."""

from dataclasses import dataclass

import torch

from dynts_batch.kvcache.policies import register
from dynts_batch.kvcache.policy import HeadwisePolicy
from dynts_batch.kvcache.view import LayerSlots


@register("tova")
@dataclass(frozen=True)
class TOVA(HeadwisePolicy):
    """Keeps the candidates with the most attention from the last query (Oren et al. 2024, arXiv
    2401.06104).

    The attention is the mean over all heads of the layer, so they keep the same tokens. Deviation:
    it evicts when the budget is reached, not at every token.
    """

    num_queries = 1

    def score_layer(self, layer: LayerSlots) -> torch.Tensor:
        return layer.attention(self.num_queries).mean(dim=(1, 2, 3))[:, None]
