"""What a layer of the model hands to its attention. Axes as in kvcache/__init__.py."""

from typing import NamedTuple

import torch


class AttentionRule(NamedTuple):
    """How a layer attends."""

    scale: float
    sliding_window: int | None
    """In tokens."""
    sinks: torch.Tensor | None
    """One per query head, [Q]."""


class LayerStates(NamedTuple):
    """The new tokens of one layer, RoPE applied."""

    layer: int
    query: torch.Tensor
    """[R, Q, T, D]"""
    key: torch.Tensor
    """[R, H, T, D]"""
    value: torch.Tensor
    """[R, H, T, D]"""
    rule: AttentionRule
