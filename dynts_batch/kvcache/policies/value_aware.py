"""VaSE: tokens with large values stay, and a draw by the window's attention fills the rest."""

from dataclasses import dataclass

import torch

from dynts_batch.errors import ConfigError
from dynts_batch.kvcache.policies import register
from dynts_batch.kvcache.policy import HeadwisePolicy
from dynts_batch.kvcache.view import LayerSlots


@register("value_aware")
@dataclass(frozen=True)
class ValueAware(HeadwisePolicy):
    """Keeps the candidates with the widest value range, and draws the others, per layer and KV
    head.

    The range is max(v) - min(v), and `value_share` of the budget stays by it. The others are drawn
    without replacement, in proportion to the attention of the last `observation_window` queries
    (VaSE, arXiv 2606.03928). Large-magnitude values are what prevents repetition loops.

    The share is the public code's: n_large = B/4. Deviation: the number of queries is a field, and
    its default is ours.
    """

    value_share: float = 0.25
    """Share of the budget that the widest values get. In [0, 1]."""
    observation_window: int = 32
    """Last queries whose attention weights the draw."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.value_share <= 1 or self.observation_window < 1:
            raise ConfigError(
                "policy.value_share must be in [0, 1] and policy.observation_window at least 1, got"
                f" {self.value_share} and {self.observation_window}"
            )

    @property
    def num_queries(self) -> int:
        return self.observation_window

    def score_layer(self, layer: LayerSlots) -> torch.Tensor:
        values = layer.values.float()
        value_range = values.amax(dim=-1) - values.amin(dim=-1)  # [N, H, C]
        order = value_range.masked_fill(~layer.is_candidate, -torch.inf).argsort(
            dim=-1, descending=True, stable=True
        )
        assert self.budget is not None, "config.validate() requires a budget"
        num_by_value = layer.of_rows(layer.slots.num_kept).clamp(
            max=int(self.budget * self.value_share)
        )
        is_wide = order.argsort(dim=-1) < num_by_value.view(-1, 1, 1)
        weights = layer.attention(self.num_queries).sum(dim=(2, 3)).double()
        # Taking the largest log(u) / w draws without replacement in proportion to w (Efraimidis and
        # Spirakis 2006).
        drawn = layer.draws().clamp(min=1e-300).log() / weights.clamp(min=1e-300)
        # Ranks, because a mean over heads of the draws' own sizes would mean nothing.
        return drawn.argsort(dim=-1).argsort(dim=-1) / drawn.shape[-1] + is_wide
