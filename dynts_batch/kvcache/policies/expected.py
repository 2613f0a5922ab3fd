"""Expected attention: tokens that coming queries will attend to stay, as far as statistics
predict."""

from dataclasses import dataclass

import torch

from dynts_batch.errors import ConfigError
from dynts_batch.kvcache.policies import register
from dynts_batch.kvcache.policy import HeadwisePolicy
from dynts_batch.kvcache.query_stats import QueryStats, as_numbers
from dynts_batch.kvcache.view import LayerSlots


@register("expected")
@dataclass(frozen=True)
class Expected(HeadwisePolicy):
    """Keeps the candidates that will add most to the output of attention, per layer and KV head.

    A score is the expected attention of coming queries times the length of the value. The queries
    are 1, 2, 4, ... and at most `horizon` tokens ahead; the score is the mean over them and over
    the query heads of the group. The method is ours. It joins TriAttention's finding that a head's
    queries stay near their mean before RoPE (arXiv 2604.04921) with the estimate of Expected
    Attention (arXiv 2510.00636).

    Queries are modelled as normal around their mean, with one variance for the two numbers of a
    pair. Then the mean of exp(q.k) is exp(mean.k + variance of q.k / 2), and a softmax over the
    candidates follows. The statistics are measured on a text while the model is loaded. No query is
    read during decoding.
    """

    horizon: int = 16
    """Farthest predicted query, in tokens ahead. At least 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.horizon < 1:
            raise ConfigError(f"policy.horizon must be at least 1, got {self.horizon}")

    @property
    def companions(self) -> frozenset[type]:
        return frozenset({QueryStats})

    @property
    def distances(self) -> list[int]:
        """How many tokens after the newest stored one the predicted queries are."""
        return [2**power for power in range(self.horizon.bit_length())]

    def score_layer(self, layer: LayerSlots) -> torch.Tensor:
        is_candidate = layer.is_candidate[:, :, None, None]
        logits = self._logits(layer).masked_fill(~is_candidate, -torch.inf)
        # A sliding-window layer may hide every candidate from a query.
        attention = logits.softmax(dim=-1).nan_to_num().mean(dim=(2, 3))  # [R, H, C]
        return attention * layer.values.float().norm(dim=-1)

    def _logits(self, layer: LayerSlots) -> torch.Tensor:
        """log E exp(q.k) of the predicted queries, [R, H, N, G, C], N of them per row and head."""
        stats, keys = layer.query_stats, layer.keys.float()  # [R, H, C, D]
        num_kv_heads, scale = keys.shape[1], stats.rule.scale
        distances = torch.tensor(self.distances, device=keys.device)
        positions = layer.slots.seq_len[:, None] - 2 + distances  # [R, N]
        queries = as_numbers(stats.at(positions)).unflatten(-2, (num_kv_heads, -1))
        queries = queries.transpose(1, 2)  # [R, H, N, G, D]
        products = queries.flatten(2, 3) @ keys.transpose(2, 3)
        variances = stats.variances.unflatten(0, (num_kv_heads, -1))  # [H, G, D]
        spread = variances @ keys.square().transpose(2, 3)  # [R, H, G, C]
        logits = products.view(*queries.shape[:4], -1) * scale + (scale**2 / 2 * spread)[:, :, None]
        if (window := stats.rule.sliding_window) is None:
            return logits
        distance = positions[:, None, :, None] - layer.positions[:, :, None]  # [R, H or 1, N, C]
        return logits.masked_fill((distance >= window)[:, :, :, None], -torch.inf)
