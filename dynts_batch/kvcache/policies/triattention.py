"""TriAttention: a key's score is a sum of cosines in its distance, from the fixed mean of the queries before RoPE."""

from dataclasses import dataclass

import torch

from dynts_batch.kvcache.policies import register
from dynts_batch.kvcache.policy import HeadwisePolicy
from dynts_batch.kvcache.query_stats import QueryStats, as_numbers, turns
from dynts_batch.kvcache.view import LayerSlots

#: How many tokens ahead the queries are whose scores are averaged.
DISTANCES = tuple(2**power for power in range(17))


@register("triattention")
@dataclass(frozen=True)
class TriAttention(HeadwisePolicy):
    """Keeps the candidates with the highest score, per layer and KV head (arXiv 2604.04921): the mean over 17 distances, up to
    65,536 tokens, of the product of the key with the mean query there, plus, for each frequency, the product of magnitudes
    times what of the queries is not their mean. Standardised over the candidates for each query head, then the largest of
    the group.

    The mean over distances is one fixed query, turned to the row's length, so that neither positions nor live queries are
    read. `trigonometric`, `norm`: the two terms, for the paper's ablations. Deviations: each layer keeps its own tokens, where
    the paper's settings share them over layers; ties go to the older token, where public code adds noise.
    """

    trigonometric: bool = True
    """Count the series of distances."""
    norm: bool = True
    """Count the length of the key."""

    @property
    def companions(self) -> frozenset[type]:
        return frozenset({QueryStats})

    def score_layer(self, layer: LayerSlots) -> torch.Tensor:
        stats, keys = layer.query_stats, layer.keys.float()  # [R, H, C, D]
        grouped = (keys.shape[1], -1)
        distances = torch.tensor(DISTANCES, device=keys.device)
        turn = turns(distances, stats.frequency).mean(dim=0)
        query = as_numbers(stats.at(layer.slots.seq_len - 1) * turn).unflatten(-2, grouped)
        scattered = (stats.magnitude - stats.mean.abs()).unflatten(-2, grouped)
        first, second = keys.square().chunk(2, dim=-1)
        magnitudes = (first + second).sqrt()  # [R, H, C, D / 2]
        score = self.trigonometric * (query @ keys.transpose(2, 3))  # [R, H, G, C]
        score = score + self.norm * (scattered @ magnitudes.transpose(2, 3))
        return _standardised(score, layer.is_candidate[:, :, None]).amax(dim=2)


def _standardised(score: torch.Tensor, is_candidate: torch.Tensor) -> torch.Tensor:
    """`score` [..., C] minus its mean over the candidates, over their deviation."""
    num = is_candidate.sum(dim=-1, keepdim=True)
    mean = (score * is_candidate).sum(dim=-1, keepdim=True) / num
    centred = (score - mean) * is_candidate
    deviation = (centred.square().sum(dim=-1, keepdim=True) / num).sqrt()
    return centred / deviation.clamp(min=1e-6)
