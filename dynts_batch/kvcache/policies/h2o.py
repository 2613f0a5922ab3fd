"""H2O: the heavy hitters, the tokens that gathered most attention so far, stay."""

from dataclasses import dataclass

import torch

from dynts_batch.kvcache.policies import register
from dynts_batch.kvcache.policy import HeadwisePolicy
from dynts_batch.kvcache.view import LayerSlots, Slots


@register("h2o")
@dataclass(frozen=True)
class H2O(HeadwisePolicy):
    """Keeps the candidates with the most attention, summed over all queries since the token was stored and over the
    query heads of its group, per layer and KV head (Zhang et al. 2023, arXiv 2306.14048).

    An evicted token's sum goes with it. `accumulate: false` counts the last query only, which with `shared_index: true`
    is what the DynTS paper calls H2O. Deviation: it evicts when the budget is reached, not at every token.
    """

    accumulate: bool = True
    """Sum the attention of all queries so far; false: of the last one only."""

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
