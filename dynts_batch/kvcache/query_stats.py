"""Statistics of a model's queries before RoPE. Each head's queries stay near a mean, so later ones
can be predicted.

Owns the statistics, and the synthetic queries made from them. Knows nothing about how they are
measured (engine/model/calibration/queries.py), nor about any policy. Axes as in
kvcache/__init__.py. RoPE turns two numbers of a head by one frequency. They are read as one complex
number, so D numbers are D / 2 pairs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from dynts_batch.kvcache.layer_states import AttentionRule


@dataclass(frozen=True)
class LayerQueries:
    """Statistics of one layer.

    By query head and pair: the `mean` of its queries, complex64, their mean `magnitude`, and the
    `variance` around the mean of each of the two numbers. By pair: the angle `frequency` by which
    RoPE turns it from one position to the next. `rule`: how the layer attends.
    """

    mean: torch.Tensor
    magnitude: torch.Tensor
    variance: torch.Tensor
    frequency: torch.Tensor
    rule: AttentionRule

    @classmethod
    def of(
        cls, queries: torch.Tensor, frequency: torch.Tensor, rule: AttentionRule
    ) -> "LayerQueries":
        """From `queries` [Q, T, D] at positions 0..T-1, RoPE applied."""
        positions = torch.arange(queries.shape[1], device=queries.device)
        pairs = as_pairs(queries.float()) * turns(-positions, frequency)
        mean = pairs.mean(dim=1)
        square = pairs.abs().square().mean(dim=1)
        variance = (square - mean.abs().square()).clamp(min=0) / 2
        return cls(mean, pairs.abs().mean(dim=1), variance, frequency, rule)

    def at(self, positions: torch.Tensor) -> torch.Tensor:
        """The mean query as RoPE turns it at `positions` [T], complex64 [T, Q, D / 2]. Of rows:
        [N, T, Q, D / 2] at [N, T]."""
        turned = turns(positions, self.frequency[..., None, :])
        return self.mean[..., None, :, :] * turned[..., None, :]

    @property
    def variances(self) -> torch.Tensor:
        """The variance of each number of a query, [..., Q, D]."""
        return torch.cat((self.variance, self.variance), dim=-1)


@dataclass(frozen=True)
class QueryStats:
    """Statistics of all layers, in their order."""

    layers: Sequence[LayerQueries]

    def of_rows(self, layers: Sequence[int], num_rows: int) -> LayerQueries:
        """Statistics of `layers` that attend alike, with an axis before the others: the first
        layer's, `num_rows` times, then the next one's."""
        found = [self.layers[layer] for layer in layers]
        mean, magnitude, variance, frequency = (
            torch.stack([getattr(layer, field) for layer in found]).repeat_interleave(num_rows, 0)
            for field in ("mean", "magnitude", "variance", "frequency")
        )
        return LayerQueries(mean, magnitude, variance, frequency, found[0].rule)


def as_pairs(states: torch.Tensor) -> torch.Tensor:
    """Queries or keys [..., D] as complex numbers [..., D / 2].

    RoPE turns number f together with number f + D / 2.
    """
    return torch.complex(*states.float().chunk(2, dim=-1))


def as_numbers(pairs: torch.Tensor) -> torch.Tensor:
    """Queries or keys [..., D] from their pairs [..., D / 2]."""
    return torch.cat((pairs.real, pairs.imag), dim=-1)


def turns(positions: torch.Tensor, frequency: torch.Tensor) -> torch.Tensor:
    """The factors by which RoPE turns pairs at `positions` [...], complex64 [..., D / 2].

    `frequency` is broadcast against [..., D / 2].
    """
    # float64, because in float32 the first pair's angle is off by a hundredth at position 100,000.
    angles = positions[..., None].double() * frequency.double()
    return torch.polar(torch.ones_like(angles), angles).to(torch.complex64)
