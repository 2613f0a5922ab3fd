"""Records what a policy requires of the queries while the model runs: the newest ones, and the attention slots receive.

The queries are those that the fast attention has anyway, and the fast attention stays on. Owns no memory: the arena
does. Letters as in kvcache/probs.py.
"""

from collections.abc import Callable

import torch

from dynts_batch.kvcache.arena import KVArena
from dynts_batch.kvcache.probs import Options, attention_received

#: Called by each layer, after it has stored its keys, with its number, its queries [R, H, T, D], and how it attends.
Observe = Callable[[int, torch.Tensor, Options], None]


class Observer:
    """`options`: how each layer attends, known once it has been seen."""

    def __init__(self, arena: KVArena) -> None:
        self._arena = arena
        self._num_queries = arena.shape.num_queries
        self._wants_attention = "attention" in arena.shape.columns
        self.options: dict[int, Options] = {}

    @property
    def wants_queries(self) -> bool:
        return self._num_queries > 0 or self._wants_attention

    @property
    def is_repeatable(self) -> bool:
        """Whether observing a step again changes nothing: sums of attention grow."""
        return not self._wants_attention

    def prompts(
        self, lanes: torch.Tensor, slots: torch.Tensor, cache_len: torch.Tensor
    ) -> Observe | None:
        """For a chunk of the prompts in `lanes` [R], whose tokens are at positions and slots `slots` [R, T], right-padded behind
        `cache_len` [R]; None: nothing is required."""
        positions = slots.masked_fill(slots >= cache_len[:, None], -1)
        newest = (cache_len - 1)[:, None] - torch.arange(self._num_queries, device=lanes.device)
        first = int(slots[0, 0]) if self.wants_queries else 0
        if first:  # those before this chunk have been remembered
            newest = newest.clamp(min=first)
        return self._observe(lanes, first + slots.shape[1], cache_len, slots, positions, newest)

    def tokens(
        self, lanes: torch.Tensor, slots: torch.Tensor, positions: torch.Tensor, max_len: int
    ) -> Observe | None:
        """For one token of each lane, the longest of which has `max_len` slots then, at slot `slots` [R] and position
        `positions` [R]; None: nothing is required."""
        positions = positions[:, None]
        return self._observe(lanes, max_len, slots + 1, slots[:, None], positions, positions)

    def _observe(
        self,
        lanes: torch.Tensor,
        max_len: int,
        cache_len: torch.Tensor,
        slots: torch.Tensor,
        positions: torch.Tensor,
        remembered: torch.Tensor,
    ) -> Observe | None:
        """`slots`, `positions` [R, T] of the queries; `remembered` [R, w]: positions of those to remember."""
        arena = self._arena
        if self._wants_attention:  # a lane's slots are used again and again
            arena.write_column("attention", lanes, slots, torch.zeros_like(slots))

        def observe(layer: int, query: torch.Tensor, options: Options) -> None:
            self.options[layer] = options
            if self._num_queries:
                # Of a prompt shorter than num_queries, the first query stands in for those that never were.
                index = (remembered - positions[:, :1]).clamp(min=0)
                index = index[:, None, :, None].expand(-1, query.shape[1], -1, query.shape[-1])
                arena.write_queries(layer, lanes, remembered, query.gather(2, index))
            if self._wants_attention:
                keys = arena.keys(layer, lanes, max_len)
                stored = arena.positions[lanes, layer if arena.shape.per_head else 0, :, :max_len]
                received = attention_received(query, keys, positions, stored, cache_len, options)
                arena.add_to_column("attention", layer, lanes, received)

        return observe if self.wants_queries else None
