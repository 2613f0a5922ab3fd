"""R-KV: tokens stay if recent queries attend to them and no newer token repeats them."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from dynts_batch.errors import ConfigError
from dynts_batch.kvcache.policies import register
from dynts_batch.kvcache.policies.snapkv import check_pooling
from dynts_batch.kvcache.policy import HeadwisePolicy
from dynts_batch.kvcache.view import LayerSlots

#: Most bytes of similarities held at once.
_CHUNK_BYTES = 64 * 2**20


@register("rkv")
@dataclass(frozen=True)
class RKV(HeadwisePolicy):
    """Keeps the candidates with the highest w x importance - (1 - w) x redundancy, per layer and KV
    head.

    w is `importance_weight` (Cai et al. 2025, arXiv 2505.24133).

    Importance: the logits of the last `observation_window` queries, of each the maximum over the
    query heads of the group. Then a softmax over the candidates, the mean over the queries, and
    max-pooling over `kernel_size` neighbours.

    Redundancy: the mean cosine similarity of a key to the others, then a softmax over the
    candidates. Near-duplicates have a similarity above `similarity_threshold`. Each key adds
    nothing to its most recent near-duplicate, so the newest copy of a repeated thought survives.

    Deviations: it evicts when the budget is reached, not every 128 tokens. Each row has its own
    redundancy; the public code uses the first row's for all. A key without near-duplicates spares
    no other; that code spares the oldest.
    """

    importance_weight: float = 0.1
    """Weight of importance; redundancy has the rest. In [0, 1]."""
    observation_window: int = 8
    """Last queries whose attention is the importance."""
    kernel_size: int = 7
    """Neighbours over which importance is pooled; odd."""
    similarity_threshold: float = 0.5
    """Cosine similarity above which two keys are near-duplicates."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_pooling(self.observation_window, self.kernel_size)
        if not 0 <= self.importance_weight <= 1:
            raise ConfigError(
                f"policy.importance_weight must be in [0, 1], got {self.importance_weight}"
            )
        if not math.isfinite(self.similarity_threshold):
            raise ConfigError(
                f"policy.similarity_threshold must be a number, got {self.similarity_threshold}"
            )

    @property
    def num_queries(self) -> int:
        return self.observation_window

    def score_layer(self, layer: LayerSlots) -> torch.Tensor:
        weight = self.importance_weight
        return weight * self._importance(layer) - (1 - weight) * self._redundancy(layer)

    def _importance(self, layer: LayerSlots) -> torch.Tensor:
        logits = layer.logits(self.num_queries).amax(dim=2)  # [N, H, T, C]
        logits = logits.masked_fill(~layer.is_candidate[:, :, None], -torch.inf)
        # A sliding-window layer may hide every candidate from a query.
        probs = logits.softmax(dim=-1).nan_to_num().mean(dim=2)
        return F.max_pool1d(probs, self.kernel_size, stride=1, padding=self.kernel_size // 2)

    def _redundancy(self, layer: LayerSlots) -> torch.Tensor:
        """[N, H, C]."""
        keys = F.normalize(layer.keys.float(), dim=-1).masked_fill(
            ~layer.is_candidate[..., None], 0.0
        )
        rows, num_heads, num_slots, _ = keys.shape
        total = torch.zeros(rows, num_heads, num_slots, device=keys.device)
        slot = torch.arange(num_slots, device=keys.device)
        for chunk in slot.split(max(1, _CHUNK_BYTES // (4 * rows * num_heads * num_slots))):
            similarity = keys[:, :, chunk] @ keys.transpose(2, 3)  # [N, H, chunk, C]
            similarity.masked_fill_(chunk[:, None] == slot, 0.0)
            is_near = similarity > self.similarity_threshold
            newest = torch.where(is_near, slot, -1).amax(dim=-1, keepdim=True)
            similarity.masked_fill_(is_near & (slot == newest), 0.0)
            total += similarity.sum(dim=2)
        mean = total / layer.is_candidate.sum(dim=-1, keepdim=True)
        return mean.masked_fill(~layer.is_candidate, -torch.inf).softmax(dim=-1)
