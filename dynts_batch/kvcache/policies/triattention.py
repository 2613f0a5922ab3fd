"""TriAttention: a key's score is a sum of cosines, from the fixed mean of the queries
before RoPE."""

from dataclasses import dataclass

import torch

from dynts_batch.kvcache.policies import register
from dynts_batch.kvcache.policy import HeadwisePolicy
from dynts_batch.kvcache.query_stats import QueryStats, as_numbers, turns
from dynts_batch.kvcache.view import LayerSlots

#: How many tokens ahead the averaged queries are.
DISTANCES = tuple(2**power for power in range(17))


@register("triattention")
@dataclass(frozen=True)
class TriAttention(HeadwisePolicy):
    """Keeps the candidates with the highest score, per layer and KV head (arXiv 2604.04921).

    The score has two terms. One is the product of the key with the mean query, averaged over 17
    distances up to 65,536 tokens. The other sums, over the frequencies, the product of magnitudes
    times the part of the queries that is not their mean. Scores are standardised over the
    candidates for each query head, and the largest of the group counts.

    The mean over distances is one fixed query, turned to the row's length. So neither positions nor
    live queries are read. `trigonometric`, `norm`: the two terms, for the paper's ablations.
    Deviations: each layer keeps its own tokens; the paper's settings share them over layers. Ties
    go to the older token; public code adds noise.
    """

    trigonometric: bool = True
    """Count the series of distances."""
    norm: bool = True
    """Count the length of the key."""

    @property
    def companions(self) -> frozenset[type]:
        return frozenset({QueryStats})

    def score_layer(self, layer: LayerSlots) -> torch.Tensor:
        stats, keys = layer.query_stats, layer.keys.float()  # [N, H, C, D]
        grouped = (keys.shape[1], -1)
        distances = torch.tensor(DISTANCES, device=keys.device)
        turn = turns(distances, stats.frequency[:, None]).mean(dim=1)  # [N, D / 2]
        newest = layer.of_rows(layer.slots.seq_len - 1)[:, None]
        query = stats.at(newest)[:, 0] * turn[:, None]  # [N, Q, D / 2]
        query = as_numbers(query).unflatten(-2, grouped)
        scattered = (stats.magnitude - stats.mean.abs()).unflatten(-2, grouped)
        first, second = keys.square().chunk(2, dim=-1)
        magnitudes = (first + second).sqrt()  # [N, H, C, D / 2]
        score = self.trigonometric * (query @ keys.transpose(2, 3))  # [N, H, G, C]
        score = score + self.norm * (scattered @ magnitudes.transpose(2, 3))
        return _standardised(score, layer.is_candidate[:, :, None]).amax(dim=2)


def _standardised(score: torch.Tensor, is_candidate: torch.Tensor) -> torch.Tensor:
    """`score` [..., C], standardised over the candidates."""
    num = is_candidate.sum(dim=-1, keepdim=True)
    mean = (score * is_candidate).sum(dim=-1, keepdim=True) / num
    centred = (score - mean) * is_candidate
    deviation = (centred.square().sum(dim=-1, keepdim=True) / num).sqrt()
    return centred / deviation.clamp(min=1e-6)
