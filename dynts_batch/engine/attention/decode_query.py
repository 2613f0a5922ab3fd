"""What a decode step asks of the cache, one new token per row: the contract of every decode kernel.

Axes as in kvcache/__init__.py.
"""

from typing import NamedTuple, Protocol

import torch

from dynts_batch.kvcache.layer_states import AttentionRule
from dynts_batch.kvcache.stores.packed import PackedStore


class DecodeQuery(NamedTuple):
    """The queries of one layer. Row r is in lane r, and sees live slots of its own lane."""

    states: torch.Tensor
    """[R, Q, 1, D]"""
    last_slots: torch.Tensor
    """The newest live slot of each lane, that of the new token, [R]."""
    positions: torch.Tensor
    """Positions of the new tokens, [R]."""
    stored_positions: torch.Tensor
    """Positions of the stored tokens, int32 [R, H or 1, C]. A sliding window hides those that left
    it."""
    rule: AttentionRule


class FusedDecode(Protocol):
    """Attention in one pass over the live slots."""

    def __call__(
        self, asked: DecodeQuery, keys: torch.Tensor, values: torch.Tensor
    ) -> torch.Tensor:
        """Attention [R, Q, 1, D] to keys and values [R, H, S, D]."""
        ...


class PackedDecode(Protocol):
    """Attention over quantised keys and values, dequantised on the way."""

    def __call__(self, asked: DecodeQuery, store: PackedStore, *, max_len: int) -> torch.Tensor:
        """Attention [R, Q, 1, D] to the first R lanes of `store`. The longest lane has `max_len`
        slots."""
        ...
