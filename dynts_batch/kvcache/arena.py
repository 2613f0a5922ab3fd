"""The KV arena: preallocated keys and values of all running sequences. Only this file moves them.

Axes as in kvcache/__init__.py. A tensor that tells layers and heads apart is [.., L, H, ..] if each
keeps its own tokens, and [.., 1, 1, ..] if all keep the same (`granularity`).

A lane holds one sequence. Its live slots are 0..cache_len-1, in ascending position, so attention
needs no mask for holes. The arena's caller tracks each lane's cache_len. Only a quantised arena
keeps a copy, because it must tell packed slots from others. Knows nothing about policies, models or
requests.
"""

from collections.abc import Iterator, Sequence

import torch

from dynts_batch.kvcache import devices, native
from dynts_batch.kvcache.arena_shape import ArenaShape
from dynts_batch.kvcache.compaction import compact
from dynts_batch.kvcache.stores.native_packed import SOURCE, SOURCES, NativePackedStore
from dynts_batch.kvcache.stores.packed import PackedStore
from dynts_batch.kvcache.stores.plain import LayerStore, PlainStore

#: Most bytes of dequantised keys that `keys_in_place` holds at once. One layer is always held.
COPIED_BYTES = 64 * 2**20


class KVArena:
    """`max_seqs` lanes of `capacity` slots, allocated once.

    `key_offsets`, by layer: what a quantised store takes out of keys [H, D], see PackedStore. If
    there are none, no layer has one.
    """

    def __init__(
        self,
        shape: ArenaShape,
        max_seqs: int,
        capacity: int,
        device: torch.device,
        key_offsets: Sequence[torch.Tensor | None] = (),
    ) -> None:
        self.shape, self.max_seqs, self.capacity = shape, max_seqs, capacity
        self.key_offsets = key_offsets or [None] * shape.num_layers
        self._cache_len = torch.zeros(
            max_seqs if shape.stored_in else 0, dtype=torch.int64, device=device
        )
        assert len(self.key_offsets) == shape.num_layers, "an offset or None for each layer"
        self.layers: list[LayerStore] = [
            self._make_store(offset, device) for offset in self.key_offsets
        ]
        per_slot = (max_seqs, *shape.granularity, capacity)
        self.positions = torch.zeros(per_slot, dtype=torch.int32, device=device)
        self.columns = {
            column.name: torch.zeros(
                max_seqs,
                *shape.granularity_of(column),
                capacity,
                dtype=torch.float32,
                device=device,
            )
            for column in shape.columns
        }
        remembered = (max_seqs, shape.num_query_heads, shape.num_queries, shape.head_dim)
        # A ring per lane: the query at position p is at p % num_queries.
        self._queries = [
            torch.zeros(remembered, dtype=shape.dtype, device=device)
            for _ in range(shape.num_layers if shape.num_queries else 0)
        ]
        self._lanes = torch.arange(max_seqs, device=device)

    @property
    def num_bytes(self) -> int:
        """Bytes of this arena as designed: max_seqs x bytes_per_sequence."""
        return self.max_seqs * self.shape.bytes_per_sequence(self.capacity)

    def stored(
        self, layer: int, num_lanes: int, num_slots: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of the first lanes and slots, [R, H, S, D] each.

        They are views, or dequantised copies.
        """
        return self.layers[layer].stored(num_lanes, num_slots)

    def keys(self, layer: int, lanes: torch.Tensor, num_slots: int) -> torch.Tensor:
        """A copy of the keys in the first `num_slots` slots of `lanes` [R]: [R, H, S, D]."""
        return self.layers[layer].keys(lanes, num_slots)

    def keys_in_place(
        self, lanes: torch.Tensor, num_slots: int
    ) -> Iterator[tuple[list[torch.Tensor], torch.Tensor]]:
        """Every layer's keys, [*, H, S, D] each, some layers at a time.

        Beside them, [R]: where the rows of `lanes` [R] are in these tensors. A plain arena yields
        the stored tensors themselves, to be read only. A quantised one yields copies of the first
        `num_slots` slots of those lanes.
        """
        where = self.rows_in_place(lanes)
        if self.shape.stored_in is None:
            yield [store.keys_in_place(lanes, num_slots) for store in self.layers], where
            return
        step = max(1, COPIED_BYTES // (len(lanes) * num_slots * self.shape.state_bytes))
        for first in range(0, len(self.layers), step):
            layers = self.layers[first : first + step]
            yield [store.keys_in_place(lanes, num_slots) for store in layers], where

    def rows_in_place(self, lanes: torch.Tensor) -> torch.Tensor:
        """Where `lanes` [R] are in what stores give in place, [R]."""
        is_copy = self.shape.stored_in is not None
        return torch.arange(len(lanes), device=lanes.device) if is_copy else lanes

    def values(self, layer: int, lanes: torch.Tensor, num_slots: int) -> torch.Tensor:
        """A copy of the values in the first `num_slots` slots of `lanes` [R]: [R, H, S, D]."""
        return self.layers[layer].values(lanes, num_slots)

    def write_queries(
        self, layer: int, lanes: torch.Tensor, positions: torch.Tensor, queries: torch.Tensor
    ) -> None:
        """Remember `queries` [R, Q, T, D] at `positions` [R, T] of `lanes` [R]."""
        ring, rows = positions % self.shape.num_queries, lanes[:, None]
        self._queries[layer][rows, :, ring] = queries.transpose(1, 2)

    def read_queries(
        self, layer: int, lanes: torch.Tensor, positions: torch.Tensor
    ) -> torch.Tensor:
        """A copy of the remembered queries of `lanes` [R] at `positions` [R, T]: [R, Q, T, D]."""
        ring, rows = positions % self.shape.num_queries, lanes[:, None]
        return self._queries[layer][rows, :, ring].transpose(1, 2)

    def write_prompt(
        self,
        layer: int,
        lanes: torch.Tensor,
        lengths: torch.Tensor,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        start: int = 0,
    ) -> None:
        """Store a chunk of prompts, [R, H, T, D], from slot `start` of `lanes` [R] on.

        Chunks are right-padded: row r has `lengths[r]` tokens.
        """
        if self.shape.stored_in:
            self._cache_len[lanes] = start + lengths
        self.layers[layer].write(lanes, start, lengths, key_states, value_states)

    def append(
        self, layer: int, slots: torch.Tensor, key_states: torch.Tensor, value_states: torch.Tensor
    ) -> None:
        """Store one token per lane, [R, H, 1, D], at `slots` [R] of the first R lanes."""
        lanes = self._lanes[: len(slots)]
        if self.shape.stored_in:
            self._cache_len[: len(slots)] = slots + 1
        self.layers[layer].append(lanes, slots, key_states[:, :, 0], value_states[:, :, 0])

    def positions_of(self, layer: int) -> torch.Tensor:
        """Positions of the tokens that `layer` stores, [max_seqs, H or 1, C]: a view."""
        return self.positions[:, layer if self.shape.per_head else 0]

    def write_column(
        self, name: str, lanes: torch.Tensor, slots: torch.Tensor, values: torch.Tensor
    ) -> None:
        """Store `values` [R, T] in `slots` [R, T] of `lanes` [R], for all layers and heads."""
        column = self.positions if name == "positions" else self.columns[name]
        rows, layers, heads = lanes[:, None], slice(None), slice(None)
        column[rows, layers, heads, slots] = values[:, :, None, None].to(column.dtype)

    def write_layer(
        self,
        name: str,
        layer: int,
        lanes: torch.Tensor,
        slots: torch.Tensor,
        values: torch.Tensor,
    ) -> None:
        """Store a layer's `values` [R, H, T] in `slots` [R, T] of `lanes` [R].

        The column must have a value for each layer and head.
        """
        column = self.columns[name]
        assert column.shape[1] == self.shape.num_layers, f"{name}: a column that tells layers apart"
        column[:, layer][lanes[:, None], :, slots] = values.transpose(1, 2).to(column.dtype)

    def set_column(self, name: str, lanes: torch.Tensor, values: torch.Tensor) -> None:
        """Replace the column of `lanes` [R] by `values` [R, L or 1, H or 1, C], shaped like the
        column."""
        self.columns[name][lanes] = values.to(torch.float32)

    def add_to_column(
        self, name: str, layer: int, lanes: torch.Tensor, values: torch.Tensor
    ) -> None:
        """Add a layer's `values` [R, H, T] to the first T slots of `lanes` [R].

        A column that all layers and heads share sums up their mean.
        """
        column = self.columns[name]
        if shared := column.shape[1:3] != (self.shape.num_layers, self.shape.num_kv_heads):
            values = values.mean(dim=1, keepdim=True) / self.shape.num_layers
        column = column[:, 0 if shared else layer]
        column[lanes, :, : values.shape[-1]] += values

    def evict(
        self, lanes: Sequence[int], kept_slots: torch.Tensor, retained_len: Sequence[int]
    ) -> None:
        """Keep the first `retained_len` [R] of `kept_slots` [R, L or 1, H or 1, K], and drop the
        others.

        The kept slots are ascending, and move to the first slots of `lanes`. The shape is [R, L, 1,
        K] if all heads of a layer keep the same. Slots that a row lists beyond its `retained_len`
        are padding: they end up beyond its new cache_len.
        """
        rows, lengths = torch.tensor([lanes, retained_len], device=kept_slots.device)
        num_kept = kept_slots.shape[-1]
        kept_slots = kept_slots.expand(-1, self.shape.granularity[0], -1, -1)
        by_head = kept_slots.expand(-1, -1, self.shape.granularity[1], -1).flatten(1, 2)
        for column in (self.positions, *self.columns.values()):
            compact(column.flatten(1, 2)[None], rows, by_head, lengths)
        for layer, store in enumerate(self.layers):
            kept = kept_slots[:, layer if self.shape.per_head else 0]
            store.evict(rows, kept, lengths, self._is_coarse(layer, rows, num_kept))
        if self.shape.stored_in:
            self._cache_len[rows] = lengths

    def move(self, source: int, target: int, cache_len: int) -> None:
        """Copy a lane's live slots, and the queries it remembers, to another lane."""
        self.take(self, source, target, cache_len)

    def take(self, other: "KVArena", source: int, target: int, cache_len: int) -> None:
        """`move` from lane `source` of another arena of the same shape.

        That arena may have other numbers of lanes and slots.
        """
        for store, given in zip(self.layers, other.layers, strict=True):
            store.take(given, source, target, cache_len)
        columns = (self.positions, *self.columns.values())
        for column, from_column in zip(
            columns, (other.positions, *other.columns.values()), strict=True
        ):
            column[target, :, :, :cache_len] = from_column[source, :, :, :cache_len]
        for queries, from_queries in zip(self._queries, other._queries, strict=True):
            queries[target] = from_queries[source]
        if self.shape.stored_in:
            self._cache_len[target] = cache_len

    def clear(self, lane: int) -> None:
        """Zero all keys and values of a lane: they may have become infinite or NaN."""
        for store in self.layers:
            store.clear(lane)

    def _is_coarse(self, layer: int, lanes: torch.Tensor, num_slots: int) -> torch.Tensor | None:
        """Which of the first slots of `lanes` [R] may be stored more coarsely, bool [R, H
        or 1, S]."""
        marked = self.shape.coarse_column
        if marked is None or marked.coarse_value is None:
            return None
        column = self.columns[marked.name]
        group = layer if column.shape[1] > 1 else 0
        return column[lanes, group, :, :num_slots].eq(marked.coarse_value)

    def _make_store(self, key_offset: torch.Tensor | None, device: torch.device) -> LayerStore:
        shape = self.shape
        size = (self.max_seqs, shape.num_kv_heads, self.capacity, shape.head_dim)
        if shape.stored_in is None:
            assert key_offset is None, "a plain store keeps keys as they are"
            return PlainStore(size, shape.dtype, device)
        coarse = shape.coarse_column
        return self._packed_kind(device)(
            size,
            shape.dtype,
            self._cache_len,
            form=shape.stored_in,
            num_marks=shape.granularity_of(coarse)[1] if coarse else 0,
            key_offset=key_offset,
        )

    def _packed_kind(self, device: torch.device) -> type[PackedStore]:
        if devices.runs_triton(device):
            from dynts_batch.kvcache.stores.triton_packed import TritonPackedStore

            return TritonPackedStore
        source = SOURCES.get(self.shape.dtype, SOURCE)
        is_native = native.can_run(source, self.shape.dtype, device, self.shape.head_dim)
        return NativePackedStore if is_native else PackedStore
