"""CUR: tokens whose keys and values weigh most in a fresh random projection stay."""

import math
from dataclasses import dataclass

import torch

from dynts_batch.errors import ConfigError
from dynts_batch.kvcache.counter_rng import uniform
from dynts_batch.kvcache.policies import register
from dynts_batch.kvcache.policy import HeadwisePolicy
from dynts_batch.kvcache.view import LayerSlots


@register("cur")
@dataclass(frozen=True)
class CUR(HeadwisePolicy):
    """Keeps the candidates with the largest |k G|^2 |v G|^2, per layer and KV head.

    G [head_dim, `num_projections`] is Gaussian, so the product estimates the leverage of keys and
    values. These are kvpress's leverage scores, resampled at every eviction as in VaSE (arXiv
    2606.03928). No query is read.

    G is a function of the sequence, its length and the layer. So a row depends on neither its
    batch-mates nor a restart.
    """

    num_projections: int = 20
    """Width of the random projection. At least 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_projections < 1:
            raise ConfigError(
                f"policy.num_projections must be at least 1, got {self.num_projections}"
            )

    def score_layer(self, layer: LayerSlots) -> torch.Tensor:
        projection = self.projection(layer)
        keys, values = layer.keys.float() @ projection, layer.values.float() @ projection
        return keys.square().sum(dim=-1) * values.square().sum(dim=-1)

    def projection(self, layer: LayerSlots) -> torch.Tensor:
        """G, float32 [N, 1, D, num_projections]."""
        slots, size = layer.slots, (layer.keys.shape[-1], self.num_projections)
        draw = layer.of_rows(uniform(slots.rng_keys, slots.seq_len))
        key = ((draw * 2.0**53).long() + (layer.layer_numbers << 53))[:, None, None]
        number = torch.arange(2 * math.prod(size), device=draw.device).view(2, *size)
        first, second = uniform(key[:, None], number).unbind(dim=1)
        # Box and Muller 1958: two uniform draws make one normal draw.
        normal = (-2 * (1 - first).log()).sqrt() * (2 * math.pi * second).cos()
        return normal.float()[:, None]
