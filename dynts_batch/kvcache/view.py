"""What a policy sees of the rows to evict from. A policy moves and changes nothing: all of it is
a copy, but for what is `in_place`.

Axes as in kvcache/__init__.py. Knows nothing about any policy.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, TypeVar

import torch

from dynts_batch.kvcache.arena import KVArena
from dynts_batch.kvcache.counter_rng import uniform
from dynts_batch.kvcache.layer_states import AttentionRule
from dynts_batch.kvcache.probs import (
    additive_mask,
    attention_logits,
    attention_probs,
    visible_slots,
)
from dynts_batch.kvcache.query_stats import LayerQueries, QueryStats
from dynts_batch.kvcache.recorders.recorder import companion_of

T = TypeVar("T")

#: Most bytes of keys or attention in float32 that layers take together; one is always taken. A CPU
#: is faster if they fit its cache, a GPU if there are few operations.
COPIED_BYTES = {"cpu": 2**22, "cuda": 2**27}


class Row(NamedTuple):
    """One row to evict from.

    `lane`: where it is. `cache_len`: live slots. `seq_len`: logical length, which includes the
    token that is drawn but not yet processed. `num_first`, `num_last`: how many of the oldest and
    newest slots stay. `num_kept`: how many of those between them stay. `rng_key`: key of the
    sequence's randomness.
    """

    lane: int
    cache_len: int
    seq_len: int
    num_first: int
    num_last: int
    num_kept: int
    rng_key: int

    @property
    def num_processed(self) -> int:
        """Tokens that went through the model: what a full cache would hold."""
        return self.seq_len - 1


@dataclass(frozen=True)
class Slots:
    """The rows to evict from, with the fields of `Row` as int64 [R].

    `rules`: how each layer attends, if its queries were recorded. `token_text`: the text of a token
    id. `companions`: objects made for the model, such as an importance predictor.
    """

    arena: KVArena
    rows: Sequence[Row]
    rules: Mapping[int, AttentionRule]
    token_text: Callable[[int], str]
    companions: Sequence[object] = ()

    @cached_property
    def _numbers(self) -> torch.Tensor:
        """[fields of a row, R]."""
        columns = list(zip(*self.rows, strict=True))
        return torch.tensor(columns, device=self.arena.positions.device)

    @property
    def lanes(self) -> torch.Tensor:
        return self._numbers[0]

    @property
    def cache_len(self) -> torch.Tensor:
        return self._numbers[1]

    @property
    def seq_len(self) -> torch.Tensor:
        return self._numbers[2]

    @property
    def num_first(self) -> torch.Tensor:
        return self._numbers[3]

    @property
    def num_last(self) -> torch.Tensor:
        return self._numbers[4]

    @property
    def num_kept(self) -> torch.Tensor:
        return self._numbers[5]

    @property
    def rng_keys(self) -> torch.Tensor:
        return self._numbers[6]

    @cached_property
    def positions(self) -> torch.Tensor:
        """Logical positions of the stored tokens, int32 [R, L or 1, H or 1, C]."""
        return self.arena.positions[self.lanes]

    @cached_property
    def is_candidate(self) -> torch.Tensor:
        """Which slots are up for selection, bool [R, C]."""
        slot = torch.arange(self.arena.capacity, device=self.lanes.device)
        end = self.cache_len - self.num_last
        return (slot >= self.num_first[:, None]) & (slot < end[:, None])

    def column(self, name: str) -> torch.Tensor:
        """A recorded per-slot value that the policy requires, float32 [R, L or 1, H or 1, S]."""
        return self.arena.columns[name][self.lanes]

    def companion(self, kind: type[T]) -> T | None:
        """The companion of this type, or None."""
        return companion_of(kind, self.companions)

    def layers(self) -> Iterator["LayerSlots"]:
        """The layers, some at a time: those that attend alike, and whose copies take little
        memory."""
        shape = self.arena.shape
        numbers = max(
            shape.num_kv_heads * shape.head_dim, shape.num_query_heads * shape.num_queries
        )
        row_bytes = 4 * self.arena.capacity * numbers
        most = max(1, COPIED_BYTES[self.lanes.device.type] // (len(self.rows) * row_bytes))
        alike: dict[Hashable, list[int]] = {}
        for layer in range(shape.num_layers):
            alike.setdefault(self._kind_of(layer), []).append(layer)
        for layers in alike.values():
            for first in range(0, len(layers), most):
                yield LayerSlots(self, layers[first : first + most])

    def layer(self, number: int) -> "LayerSlots":
        return LayerSlots(self, [number])

    def _kind_of(self, layer: int) -> Hashable:
        """Equal for layers that attend alike."""
        stats = self.companion(QueryStats)
        rules = self.rules.get(layer), stats.layers[layer].rule if stats else None
        return tuple(layer if rule and rule.sinks is not None else rule for rule in rules)


class LayerSlots:
    """The rows in some `layers` that attend alike. Nothing is copied or computed until it is asked
    for.

    A row and a layer make one row here: N are the rows of the first layer, then those of the next.
    So one operation works on all the layers.
    """

    def __init__(self, slots: Slots, layers: Sequence[int]) -> None:
        self.slots, self.layers = slots, layers

    @property
    def is_candidate(self) -> torch.Tensor:
        """Which slots are up for selection, bool [N, 1, C]."""
        return self.of_rows(self.slots.is_candidate)[:, None]

    @property
    def positions(self) -> torch.Tensor:
        """Logical positions of the stored tokens, int32 [N, H or 1, C]."""
        positions = self.slots.positions
        if not self.slots.arena.shape.per_head:
            return self.of_rows(positions[:, 0])
        return positions[:, self.layers].transpose(0, 1).flatten(0, 1)

    @cached_property
    def keys(self) -> torch.Tensor:
        """Stored keys, RoPE applied, [N, H, C, D]. Slots beyond a row's cache_len hold anything
        finite."""
        arena = self.slots.arena
        return self._joined(lambda layer: arena.keys(layer, self.slots.lanes, arena.capacity))

    @cached_property
    def values(self) -> torch.Tensor:
        """Stored values, [N, H, C, D]."""
        arena = self.slots.arena
        return self._joined(lambda layer: arena.values(layer, self.slots.lanes, arena.capacity))

    def in_place(self) -> tuple[list[torch.Tensor], list[torch.Tensor], torch.Tensor]:
        """Each layer's keys and values where they are stored, contiguous [*, H, C, D], to be read
        only, and where the rows are in them, [R]. A quantised arena gives copies."""
        arena, lanes = self.slots.arena, self.slots.lanes
        stores = [arena.layers[layer] for layer in self.layers]
        keys = [store.keys_in_place(lanes, arena.capacity).contiguous() for store in stores]
        values = [store.values_in_place(lanes, arena.capacity).contiguous() for store in stores]
        return keys, values, arena.rows_in_place(lanes)

    @cached_property
    def query_stats(self) -> LayerQueries:
        """Statistics of the layers' queries, one after the other for each of N, for a policy whose
        `companions` name QueryStats."""
        stats = self.slots.companion(QueryStats)
        assert stats is not None, "the engine measures what a policy needs"
        return stats.of_rows(self.layers, len(self.slots.rows))

    def of_rows(self, values: torch.Tensor) -> torch.Tensor:
        """Values of the rows, [R, ...], as [N, ...]."""
        return values.repeat(len(self.layers), *(1 for _ in values.shape[1:]))

    @property
    def layer_numbers(self) -> torch.Tensor:
        """int64 [N]."""
        numbers = torch.tensor(self.layers, device=self.slots.lanes.device)
        return numbers.repeat_interleave(len(self.slots.rows))

    def query_positions(self, num_queries: int) -> torch.Tensor:
        """Positions of the last queries, oldest first, int64 [N, T]."""
        return self.of_rows(self._row_positions(num_queries))

    def queries(self, num_queries: int) -> torch.Tensor:
        """The last queries, RoPE applied, oldest first, [N, Q, T, D]."""
        arena, positions = self.slots.arena, self._row_positions(num_queries)
        return self._joined(lambda layer: arena.read_queries(layer, self.slots.lanes, positions))

    def logits(self, num_queries: int) -> torch.Tensor:
        """Scaled attention logits of the last queries, [N, H, G, T, C].

        Minus infinity if the layer hides a slot.
        """
        logits = attention_logits(self.queries(num_queries), self.keys, self._rule.scale)
        return logits.masked_fill(~self._visible(num_queries).unsqueeze(2), -torch.inf)

    def attention(self, num_queries: int) -> torch.Tensor:
        """The attention of the last queries to the stored tokens, sinks counted, [N, H, G,
        T, C]."""
        mask = additive_mask(self._visible(num_queries), torch.float32)
        probs = attention_probs(self.queries(num_queries), self.keys, mask, self._rule)
        # In a sliding-window layer, all that an older query saw may be gone. It then pays nothing,
        # not NaN.
        return probs.nan_to_num()

    def draws(self) -> torch.Tensor:
        """Uniform draws in [0, 1), float64 [N, H, C].

        A draw is a function of the sequence, its length, the layer, the head and the token. So it
        depends on neither the batch nor a restart.
        """
        num_heads, slots = self.slots.arena.shape.num_kv_heads, self.slots
        heads = torch.arange(num_heads, device=slots.lanes.device)
        heads = self.layer_numbers[:, None] * num_heads + heads  # [N, H]
        draw = self.of_rows(uniform(slots.rng_keys, slots.seq_len))
        # One key per (sequence, eviction, layer, head), then one draw per token.
        key = (draw * 2.0**53).long()[:, None] + (heads << 53)
        return uniform(key[:, :, None], self.positions.long())

    def _joined(self, of_layer: Callable[[int], torch.Tensor]) -> torch.Tensor:
        parts = [of_layer(layer) for layer in self.layers]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _row_positions(self, num_queries: int) -> torch.Tensor:
        newest = self.slots.seq_len[:, None] - 2  # the last token drawn has not been processed
        return newest - torch.arange(num_queries - 1, -1, -1, device=newest.device)

    @property
    def _rule(self) -> AttentionRule:
        return self.slots.rules[self.layers[0]]

    def _visible(self, num_queries: int) -> torch.Tensor:
        return visible_slots(
            self.query_positions(num_queries),
            self.positions,
            self.of_rows(self.slots.cache_len),
            self._rule.sliding_window,
        )
