"""The KV arena: preallocated keys and values of all running sequences. The only file that moves them.

Shapes: R lanes used, H key/value heads, C capacity, D head_dim, w remembered queries, G the policy's granularity, which is (1, 1)
when all layers and heads keep the same tokens and (num_layers, num_kv_heads) when each keeps its own.

A lane holds one sequence; its live slots are 0..cache_len-1, in ascending position, so attention needs no hole mask.
Whoever drives the arena knows each lane's cache_len; the arena stores it nowhere. Knows nothing about policies,
models or requests.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class ArenaShape:
    """What the arena's size follows from.

    `columns`: names of the per-slot float32 values a policy needs. `num_queries`: how many of the newest queries of its
    `num_query_heads` heads each lane remembers for the policy.
    """

    num_layers: int
    num_kv_heads: int
    head_dim: int
    dtype: torch.dtype
    per_head: bool = False
    columns: tuple[str, ...] = ()
    num_queries: int = 0
    num_query_heads: int = 0

    @property
    def granularity(self) -> tuple[int, int]:
        return (self.num_layers, self.num_kv_heads) if self.per_head else (1, 1)

    @property
    def kv_bytes_per_token(self) -> int:
        """Keys and values of one token in all layers."""
        return 2 * self.num_layers * self.num_kv_heads * self.head_dim * self.dtype.itemsize

    @property
    def bytes_per_token(self) -> int:
        """All that one stored token takes: keys, values, its position and the columns."""
        layers, heads = self.granularity
        return self.kv_bytes_per_token + layers * heads * 4 * (1 + len(self.columns))

    def bytes_per_sequence(self, capacity: int) -> int:
        """A lane of `capacity` slots and the queries it remembers."""
        query_bytes = self.num_query_heads * self.head_dim * self.dtype.itemsize
        return capacity * self.bytes_per_token + self.num_layers * self.num_queries * query_bytes


class KVArena:
    """`max_seqs` lanes of `capacity` slots, allocated once."""

    def __init__(
        self, shape: ArenaShape, max_seqs: int, capacity: int, device: torch.device
    ) -> None:
        self.shape, self.max_seqs, self.capacity = shape, max_seqs, capacity
        stored = (max_seqs, shape.num_kv_heads, capacity, shape.head_dim)
        # Zeros, not garbage: a masked slot has weight 0 in the attention, and 0 x NaN would still be NaN.
        self._keys, self._values = (
            [torch.zeros(stored, dtype=shape.dtype, device=device) for _ in range(shape.num_layers)]
            for _ in range(2)
        )
        per_slot = (max_seqs, *shape.granularity, capacity)
        self.positions = torch.zeros(per_slot, dtype=torch.int32, device=device)
        self.columns = {
            name: torch.zeros(per_slot, dtype=torch.float32, device=device)
            for name in shape.columns
        }
        remembered = (max_seqs, shape.num_query_heads, shape.num_queries, shape.head_dim)
        # A ring per lane: the query at position p stands at p % num_queries.
        self._queries = [
            torch.zeros(remembered, dtype=shape.dtype, device=device)
            for _ in range(shape.num_layers if shape.num_queries else 0)
        ]
        self._heads = torch.arange(shape.num_kv_heads, device=device)[:, None]
        self._lanes = torch.arange(max_seqs, device=device)

    @property
    def num_bytes(self) -> int:
        """Bytes this arena was built to hold: max_seqs x bytes_per_sequence."""
        return self.max_seqs * self.shape.bytes_per_sequence(self.capacity)

    def stored(
        self, layer: int, num_lanes: int, num_slots: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of the first lanes and slots, [R, H, num_slots, D] each, as views."""
        return self._keys[layer][:num_lanes, :, :num_slots], self._values[layer][
            :num_lanes, :, :num_slots
        ]

    def keys(self, layer: int, lanes: torch.Tensor, num_slots: int) -> torch.Tensor:
        """Keys of the first `num_slots` slots of `lanes` [rows], [rows, H, num_slots, D], as a copy."""
        return self._keys[layer][:, :, :num_slots][lanes]

    def values(self, layer: int, lanes: torch.Tensor, num_slots: int) -> torch.Tensor:
        """Values of the first `num_slots` slots of `lanes` [rows], [rows, H, num_slots, D], as a copy."""
        return self._values[layer][:, :, :num_slots][lanes]

    def write_queries(
        self, layer: int, lanes: torch.Tensor, positions: torch.Tensor, queries: torch.Tensor
    ) -> None:
        """Remember `queries` [rows, query heads, T, D] at `positions` [rows, T] of `lanes` [rows]."""
        ring, rows = positions % self.shape.num_queries, lanes[:, None]
        self._queries[layer][rows, :, ring] = queries.transpose(1, 2)

    def read_queries(
        self, layer: int, lanes: torch.Tensor, positions: torch.Tensor
    ) -> torch.Tensor:
        """The remembered queries of `lanes` [rows] at `positions` [rows, T], [rows, query heads, T, D], as a copy."""
        ring, rows = positions % self.shape.num_queries, lanes[:, None]
        return self._queries[layer][rows, :, ring].transpose(1, 2)

    def write_prompt(
        self,
        layer: int,
        lanes: torch.Tensor,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        start: int = 0,
    ) -> None:
        """Store a chunk of prompts, [rows, H, T, D], from slot `start` of `lanes` [rows] on. Right padding is stored
        beyond the prompt's cache_len, where nothing reads it before a later token overwrites it."""
        stop = start + key_states.shape[2]
        self._keys[layer][lanes, :, start:stop] = key_states
        self._values[layer][lanes, :, start:stop] = value_states

    def append(
        self, layer: int, slots: torch.Tensor, key_states: torch.Tensor, value_states: torch.Tensor
    ) -> None:
        """Store one token, [R, H, 1, D], at slot `slots` [R] of each of the first R lanes."""
        lanes = self._lanes[: len(slots)]
        self._keys[layer][lanes, :, slots] = key_states[:, :, 0]
        self._values[layer][lanes, :, slots] = value_states[:, :, 0]

    def write_column(
        self, name: str, lanes: torch.Tensor, slots: torch.Tensor, values: torch.Tensor
    ) -> None:
        """Store `values` [rows, T] in `slots` [rows, T] of `lanes` [rows], for all layers and heads."""
        column = self.positions if name == "positions" else self.columns[name]
        rows, layers, heads = lanes[:, None], slice(None), slice(None)
        column[rows, layers, heads, slots] = values[:, :, None, None].to(column.dtype)

    def set_column(self, name: str, lanes: torch.Tensor, values: torch.Tensor) -> None:
        """Replace the column of `lanes` [rows] by `values` [rows, *granularity, C]."""
        self.columns[name][lanes] = values

    def add_to_column(
        self, name: str, layer: int, lanes: torch.Tensor, values: torch.Tensor
    ) -> None:
        """Add `values` [rows, H, T] of a layer to the first T slots of `lanes` [rows]; where all layers and heads share
        a column, their mean is what adds up in it."""
        shared = not self.shape.per_head
        if shared:
            values = values.mean(dim=1, keepdim=True) / self.shape.num_layers
        column = self.columns[name][:, 0 if shared else layer]
        column[lanes, :, : values.shape[-1]] += values

    def evict(self, lanes: Sequence[int], kept_slots: torch.Tensor) -> None:
        """Keep only `kept_slots` [len(lanes), *granularity, K] of `lanes`, moved to slots 0..K-1 in order.

        Rows that keep fewer than K pad their list with any slot; what the padding leaves behind lies beyond
        their new cache_len.
        """
        rows = torch.tensor(lanes, device=kept_slots.device)
        num_kept = kept_slots.shape[-1]
        for layer in range(self.shape.num_layers):
            kept = kept_slots[:, layer if self.shape.per_head else 0]  # [rows, H or 1, K]
            for tensor in (self._keys[layer], self._values[layer]):
                # Indexing copies before the assignment, so the overlap of source and target is harmless.
                tensor[rows, :, :num_kept] = tensor[rows[:, None, None], self._heads, kept]
        for column in (self.positions, *self.columns.values()):
            column[rows, :, :, :num_kept] = column[rows].gather(-1, kept_slots)

    def move(self, source: int, target: int, cache_len: int) -> None:
        """Copy a lane's live slots, and the queries it remembers, to another lane."""
        for tensor in (*self._keys, *self._values):
            tensor[target, :, :cache_len] = tensor[source, :, :cache_len]
        for column in (self.positions, *self.columns.values()):
            column[target, :, :, :cache_len] = column[source, :, :, :cache_len]
        for queries in self._queries:
            queries[target] = queries[source]
