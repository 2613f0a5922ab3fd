"""What a policy sees of the rows to evict from. All of it is a copy: a policy moves and changes
nothing.

Axes as in kvcache/__init__.py. Knows nothing about any policy.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
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
        """The layers, one at a time, so that the copies of one are freed before the next."""
        for layer in range(self.arena.shape.num_layers):
            yield self.layer(layer)

    def layer(self, number: int) -> "LayerSlots":
        return LayerSlots(self, number)


class LayerSlots:
    """One layer of the rows. Nothing is copied or computed until it is asked for."""

    def __init__(self, slots: Slots, layer: int) -> None:
        self.slots, self.layer = slots, layer

    @property
    def is_candidate(self) -> torch.Tensor:
        """Which slots are up for selection, bool [R, 1, C]."""
        return self.slots.is_candidate[:, None]

    @property
    def positions(self) -> torch.Tensor:
        """Logical positions of the stored tokens, int32 [R, H or 1, C]."""
        return self.slots.positions[:, self.layer if self.slots.arena.shape.per_head else 0]

    @cached_property
    def keys(self) -> torch.Tensor:
        """Stored keys, RoPE applied, [R, H, C, D]. Slots beyond a row's cache_len hold anything
        finite."""
        arena = self.slots.arena
        return arena.keys(self.layer, self.slots.lanes, arena.capacity)

    @cached_property
    def values(self) -> torch.Tensor:
        """Stored values, [R, H, C, D]."""
        arena = self.slots.arena
        return arena.values(self.layer, self.slots.lanes, arena.capacity)

    @property
    def query_stats(self) -> LayerQueries:
        """Statistics of the layer's queries, for a policy whose `companions` name QueryStats."""
        stats = self.slots.companion(QueryStats)
        assert stats is not None, "the engine measures what a policy needs"
        return stats.layers[self.layer]

    def query_positions(self, num_queries: int) -> torch.Tensor:
        """Positions of the last queries, oldest first, int64 [R, T]."""
        newest = self.slots.seq_len[:, None] - 2  # the last token drawn has not been processed
        return newest - torch.arange(num_queries - 1, -1, -1, device=newest.device)

    def queries(self, num_queries: int) -> torch.Tensor:
        """The last queries, RoPE applied, oldest first, [R, Q, T, D]."""
        positions = self.query_positions(num_queries)
        return self.slots.arena.read_queries(self.layer, self.slots.lanes, positions)

    def logits(self, num_queries: int) -> torch.Tensor:
        """Scaled attention logits of the last queries, [R, H, G, T, C].

        Minus infinity if the layer hides a slot.
        """
        logits = attention_logits(self.queries(num_queries), self.keys, self._rule.scale)
        return logits.masked_fill(~self._visible(num_queries).unsqueeze(2), -torch.inf)

    def attention(self, num_queries: int) -> torch.Tensor:
        """The attention of the last queries to the stored tokens, sinks counted, [R, H, G,
        T, C]."""
        mask = additive_mask(self._visible(num_queries), torch.float32)
        probs = attention_probs(self.queries(num_queries), self.keys, mask, self._rule)
        # In a sliding-window layer, all that an older query saw may be gone. It then pays nothing,
        # not NaN.
        return probs.nan_to_num()

    def draws(self) -> torch.Tensor:
        """Uniform draws in [0, 1), float64 [R, H, C].

        A draw is a function of the sequence, its length, the layer, the head and the token. So it
        depends on neither the batch nor a restart.
        """
        rows, num_heads = len(self.slots.lanes), self.slots.arena.shape.num_kv_heads
        heads = torch.arange(num_heads, device=self.slots.lanes.device) + self.layer * num_heads
        draw = uniform(self.slots.rng_keys, self.slots.seq_len)
        # One key per (sequence, eviction, layer, head), then one draw per token.
        key = (draw * 2.0**53).long().view(rows, 1, 1) + (heads.view(1, -1, 1) << 53)
        return uniform(key, self.positions.long())

    @property
    def _rule(self) -> AttentionRule:
        return self.slots.rules[self.layer]

    def _visible(self, num_queries: int) -> torch.Tensor:
        return visible_slots(
            self.query_positions(num_queries),
            self.positions,
            self.slots.cache_len,
            self._rule.sliding_window,
        )
