"""Sliding window: the newest tokens stay."""

from dataclasses import dataclass

import torch

from dynts_batch.kvcache.policies import register
from dynts_batch.kvcache.policy import Policy
from dynts_batch.kvcache.view import Slots


@register("window")
@dataclass(frozen=True)
class Window(Policy):
    """Keeps the newest candidates. The simplest baseline."""

    def score(self, slots: Slots) -> torch.Tensor:
        return slots.positions.float()
