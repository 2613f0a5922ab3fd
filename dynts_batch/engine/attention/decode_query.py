"""What a decode step asks of the cache, one new token a row: the contract of every kernel that answers. Axes as in
kvcache/__init__.py."""

from typing import NamedTuple, Protocol

import torch

from dynts_batch.kvcache.layer_states import AttentionRule
from dynts_batch.kvcache.stores.packed import PackedStore


class DecodeQuery(NamedTuple):
    """The queries of one layer, and what each may see: the live slots of its own lane, the first R lanes."""

    states: torch.Tensor
    """[R, Q, 1, D]"""
    last_slots: torch.Tensor
    """The newest live slot of each lane, the new token's own, [R]."""
    positions: torch.Tensor
    """Of the new tokens, [R]."""
    stored_positions: torch.Tensor
    """Of the tokens in the slots, int32 [R, H or 1, C]: a sliding window hides those that have left it."""
    rule: AttentionRule


class FusedDecode(Protocol):
    """Attention in one pass over the live slots."""

    def __call__(
        self, asked: DecodeQuery, keys: torch.Tensor, values: torch.Tensor
    ) -> torch.Tensor:
        """Attention [R, Q, 1, D] to keys and values [R, H, S, D]."""
        ...


class PackedDecode(Protocol):
    """Attention over quantised keys and values, which are dequantised on the way."""

    def __call__(self, asked: DecodeQuery, store: PackedStore, *, max_len: int) -> torch.Tensor:
        """Attention [R, Q, 1, D] to the first R lanes of `store`, the longest of which has `max_len` slots."""
        ...
