"""What the keys of a head have in common, to be taken out before they are quantised.

In many models a head's keys are one constant vector with little beside it: in Qwen2 it is the bias
of `k_proj`. A number format without a zero-point spends its precision on it.
"""

import torch

from dynts_batch.engine.model.calibration.text_pass import TextPass, turned
from dynts_batch.kvcache.query_stats import turns


def measure_key_offsets(text: TextPass, num_positions: int) -> list[torch.Tensor | None]:
    """By layer: the constant [H, D] that is nearest to the mean key of each position, in the keys'
    type.

    It is the mean of keys before RoPE, as RoPE turns it on average over the first `num_positions`.
    Pairs that turn round many times until then have next to no offset, slow pairs have their whole
    mean. None: the layer must not or need not have one. Logits may differ by a constant only if a
    softmax over nothing else follows, which sinks forbid. Other ways to turn have no such mean.
    """
    return [
        None
        if seen.rule.sinks is not None or frequency is None
        else _offset(seen.keys, frequency, num_positions).to(seen.keys.dtype)
        for seen, frequency in zip(text.layers, text.frequencies, strict=True)
    ]


def _offset(keys: torch.Tensor, frequency: torch.Tensor, num_positions: int) -> torch.Tensor:
    """From `keys` [H, T, D] at positions 0..T-1, RoPE applied."""
    positions = torch.arange(keys.shape[1], device=keys.device)
    before_rope = turned(keys, turns(-positions, frequency)).mean(dim=1)
    return turned(before_rope, _mean_turn(frequency, num_positions))


def _mean_turn(frequency: torch.Tensor, num_positions: int) -> torch.Tensor:
    """The mean over positions 0..num_positions-1 of the factors of `turns`, complex64, by pair.

    It is the sum of a geometric series: shorter than 1, in the direction of the middle position.
    """
    half = frequency.double() / 2
    length = (num_positions * half).sin() / (num_positions * half.sin())
    length = length.where(half.sin() != 0, 1.0)  # a pair that RoPE does not turn
    angle = (num_positions - 1) * half
    return torch.complex(length * angle.cos(), length * angle.sin()).to(torch.complex64)
