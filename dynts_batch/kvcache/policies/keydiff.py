"""KeyDiff: tokens whose keys differ from the others' keys stay."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from dynts_batch.kvcache.policies import register
from dynts_batch.kvcache.policy import HeadwisePolicy
from dynts_batch.kvcache.view import LayerSlots


@register("keydiff")
@dataclass(frozen=True)
class KeyDiff(HeadwisePolicy):
    """Keeps the candidates whose keys are least similar to the mean key, per layer and KV head.

    The similarity is the cosine to the mean of the candidates' normalised keys (Park et al. 2025,
    arXiv 2504.15364).
    """

    def score_layer(self, layer: LayerSlots) -> torch.Tensor:
        keys = F.normalize(layer.keys.float(), dim=-1)
        total = keys.masked_fill(~layer.is_candidate[..., None], 0.0).sum(dim=2, keepdim=True)
        return -F.cosine_similarity(keys, total, dim=-1)  # the sum has the mean's direction
