"""Keys and values of one layer for all lanes: the verbs of every store, and the plain store.

All kinds have the same verbs, so a caller need not know the kind. Only kvcache/arena.py writes to
them. Axes as in kvcache/__init__.py.
"""

from typing import Protocol, Self

import torch

from dynts_batch.kvcache.compaction import compact


class LayerStore(Protocol):
    """What the arena asks of a layer's keys and values."""

    def stored(self, num_lanes: int, num_slots: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of the first lanes and slots, [R, H, S, D] each."""
        ...

    def keys(self, lanes: torch.Tensor, num_slots: int) -> torch.Tensor:
        """A copy, [R, H, S, D]. Slots beyond a lane's end hold anything finite."""
        ...

    def values(self, lanes: torch.Tensor, num_slots: int) -> torch.Tensor:
        """A copy, [R, H, S, D]."""
        ...

    def keys_in_place(self, lanes: torch.Tensor, num_slots: int) -> torch.Tensor:
        """All that is stored, [max_seqs, H, C, D], to be read only. If it is quantised: what `keys`
        gives."""
        ...

    def values_in_place(self, lanes: torch.Tensor, num_slots: int) -> torch.Tensor:
        """The same of values."""
        ...

    def write(
        self,
        lanes: torch.Tensor,
        start: int,
        lengths: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
    ) -> None:
        """Store the first `lengths` [R] tokens of keys and values [R, H, T, D] from slot `start`
        on.

        `start` is a multiple of 16, and all slots before it are stored.
        """
        ...

    def append(
        self, lanes: torch.Tensor, slots: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
    ) -> None:
        """Store one token, keys and values [R, H, D], at `slots` [R] of `lanes` [R]."""
        ...

    def evict(
        self,
        rows: torch.Tensor,
        kept: torch.Tensor,
        retained_len: torch.Tensor,
        is_coarse: torch.Tensor | None,
    ) -> None:
        """Keep the first `retained_len` [R] of the slots `kept` [R, H or 1, K] of lanes `rows`, in
        that order.

        `is_coarse`: which of them may be stored more coarsely.
        """
        ...

    def take(self, other: Self, source: int, target: int, cache_len: int) -> None:
        """Copy a lane's live slots from a store of the same kind, or this one, to another lane."""
        ...

    def clear(self, lane: int) -> None:
        """Zero all slots of a lane."""
        ...


class PlainStore:
    """In the model's own precision."""

    def __init__(
        self, size: tuple[int, int, int, int], dtype: torch.dtype, device: torch.device
    ) -> None:
        # Zeros, not garbage: a masked slot has weight 0 in the attention, and 0 x NaN is NaN.
        self._states = torch.zeros(2, *size, dtype=dtype, device=device)
        self._keys, self._values = self._states

    def stored(self, num_lanes: int, num_slots: int) -> tuple[torch.Tensor, torch.Tensor]:
        """As views."""
        return self._keys[:num_lanes, :, :num_slots], self._values[:num_lanes, :, :num_slots]

    def keys(self, lanes: torch.Tensor, num_slots: int) -> torch.Tensor:
        return self._keys[:, :, :num_slots].index_select(0, lanes)

    def keys_in_place(self, lanes: torch.Tensor, num_slots: int) -> torch.Tensor:
        return self._keys

    def values(self, lanes: torch.Tensor, num_slots: int) -> torch.Tensor:
        return self._values[:, :, :num_slots].index_select(0, lanes)

    def values_in_place(self, lanes: torch.Tensor, num_slots: int) -> torch.Tensor:
        return self._values

    def write(
        self,
        lanes: torch.Tensor,
        start: int,
        lengths: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
    ) -> None:
        """Tokens beyond `lengths` are stored too. Nothing reads them before a later token
        overwrites them."""
        stop = start + keys.shape[2]
        self._keys[lanes, :, start:stop] = keys
        self._values[lanes, :, start:stop] = values

    def append(
        self, lanes: torch.Tensor, slots: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
    ) -> None:
        self._keys[lanes, :, slots] = keys
        self._values[lanes, :, slots] = values

    def evict(
        self,
        rows: torch.Tensor,
        kept: torch.Tensor,
        retained_len: torch.Tensor,
        is_coarse: torch.Tensor | None,
    ) -> None:
        compact(self._states, rows, kept, retained_len)

    def take(self, other: Self, source: int, target: int, cache_len: int) -> None:
        self._states[:, target, :, :cache_len] = other._states[:, source, :, :cache_len]

    def clear(self, lane: int) -> None:
        self._states[:, lane] = 0


def head_strides(stored: torch.Tensor) -> tuple[int, int]:
    """Strides between lanes and between heads of [R, H or 1, ...]; 0 for heads that share what is
    stored."""
    return stored.stride(0), stored.stride(1) if stored.shape[1] > 1 else 0
