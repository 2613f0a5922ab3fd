"""Records the attention that each slot has received since it was stored.

It is summed over the queries and over the query heads of the group. The fast attention has these
queries anyway, and stays on.
"""

import torch

from dynts_batch.kvcache.arena_shape import Column
from dynts_batch.kvcache.layer_states import LayerStates
from dynts_batch.kvcache.probs import attention_received
from dynts_batch.kvcache.recorders import register
from dynts_batch.kvcache.recorders.recorder import Recorder, Tokens


@register
class Attention(Recorder):
    column = Column("attention")
    is_repeatable = False  # sums grow

    def begin(self, tokens: Tokens) -> None:
        self.write(tokens, torch.zeros_like(tokens.slots))  # lanes reuse slots

    def observe(self, tokens: Tokens, states: LayerStates) -> None:
        arena, layer, lanes = self.arena, states.layer, tokens.lanes
        keys = arena.keys(layer, lanes, tokens.max_len)
        stored = arena.positions_of(layer)[lanes, :, : tokens.max_len]
        is_padding = tokens.slots >= tokens.cache_len[:, None]
        positions = tokens.positions.masked_fill(is_padding, -1)
        received = attention_received(
            states.query, keys, positions, stored, tokens.cache_len, states.rule
        )
        arena.add_to_column(self.column.name, layer, lanes, received)
