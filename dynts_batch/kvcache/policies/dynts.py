"""DynTS: the thinking tokens that the answer will attend to stay."""

from dataclasses import dataclass

import torch

from dynts_batch.kvcache.policies import register
from dynts_batch.kvcache.policy import Policy, Slots


@register("dynts")
@dataclass(frozen=True)
class DynTS(Policy):
    """Keeps the candidates with the highest predicted importance (arXiv 2601.18383).

    The importance predictor reads a token's final hidden state once, when its keys are stored; all layers and heads
    keep the same tokens. Deviation from the reference code: the prompt is protected outside the ratio, where the
    reference lets it take a part of the kept tokens.
    """

    requires = ("importance",)

    def score(self, slots: Slots) -> torch.Tensor:
        return slots.columns["importance"]
