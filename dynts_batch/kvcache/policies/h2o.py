"""H2O: the heavy hitters stay, which are the tokens with most attention so far."""

from dataclasses import dataclass

import torch

from dynts_batch.kvcache.policies import register
from dynts_batch.kvcache.policy import HeadwisePolicy
from dynts_batch.kvcache.view import LayerSlots, Slots


@register("h2o")
@dataclass(frozen=True)
class H2O(HeadwisePolicy):
    """Keeps the candidates with the most attention, per layer and KV head (Zhang et al. 2023, arXiv
    2306.14048).

    Attention is summed over the query heads of the group, and over all queries since the token was
    stored. An evicted token's sum goes with it. `accumulate: false` counts only the last query;
    with `shared_index: true` that is what the DynTS paper calls H2O. Deviation: it evicts when the
    budget is reached, not at every token.
    """

    accumulate: bool = True
    """Sum the attention of all queries so far; false: only the last one's."""

    @property
    def requires(self) -> tuple[str, ...]:
        return ("attention",) if self.accumulate else ()

    @property
    def num_queries(self) -> int:
        return 0 if self.accumulate else 1

    def score(self, slots: Slots) -> torch.Tensor:
        return slots.column("attention") if self.accumulate else super().score(slots)

    def score_layer(self, layer: LayerSlots) -> torch.Tensor:
        return layer.attention(self.num_queries).sum(dim=(2, 3))
