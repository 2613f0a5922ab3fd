"""SnapKV: tokens that the last queries attend to stay, and their neighbours."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from dynts_batch.errors import ConfigError
from dynts_batch.kvcache.policies import register
from dynts_batch.kvcache.policy import HeadwisePolicy
from dynts_batch.kvcache.view import LayerSlots


@register("snapkv")
@dataclass(frozen=True)
class SnapKV(HeadwisePolicy):
    """Keeps the candidates with the most attention from the last `observation_window` queries.

    The attention is average-pooled over `kernel_size` neighbours, and is the mean over the query
    heads of a KV head (Li et al. 2024, arXiv 2404.14469).

    Deviations: it runs at every eviction, not once after the prompt. The neighbours are stored
    candidates, whose positions may have gaps. Public codes take the mean or the maximum over the
    query heads; this is the mean.
    """

    observation_window: int = 32
    """Last queries whose attention counts."""
    kernel_size: int = 5
    """Neighbours over which attention is pooled; odd."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_pooling(self.observation_window, self.kernel_size)

    @property
    def num_queries(self) -> int:
        return self.observation_window

    def score_layer(self, layer: LayerSlots) -> torch.Tensor:
        attention = layer.attention(self.num_queries).sum(dim=3).mean(dim=2)
        # Zeros around the candidates count, as in the original's padding.
        return F.avg_pool1d(
            attention.masked_fill(~layer.is_candidate, 0.0),
            self.kernel_size,
            stride=1,
            padding=self.kernel_size // 2,
        )


def check_pooling(observation_window: int, kernel_size: int) -> None:
    """Check how a policy looks back and pools.

    Raises: ConfigError if it cannot do so.
    """
    if observation_window < 1:
        raise ConfigError(f"policy.observation_window must be at least 1, got {observation_window}")
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ConfigError(f"policy.kernel_size must be odd and at least 1, got {kernel_size}")
