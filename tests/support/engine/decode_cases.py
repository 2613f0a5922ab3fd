"""Ragged caches, and attention over them written out, for the fused decode kernels."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from dynts_batch.engine.attention.decode_query import DecodeQuery
from dynts_batch.kvcache.layer_states import AttentionRule
from dynts_batch.kvcache.probs import additive_mask, attention_probs

NUM_KV_HEADS = 3


@dataclass
class RandomCache:
    """What the kernels are asked, but for the rule, and the keys and values to answer from."""

    query: torch.Tensor
    keys: torch.Tensor
    values: torch.Tensor
    last_slots: torch.Tensor
    positions: torch.Tensor
    stored_positions: torch.Tensor

    def each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "RandomCache":
        return RandomCache(**{name: change(tensor) for name, tensor in vars(self).items()})

    def asked(self, rule: AttentionRule) -> DecodeQuery:
        return DecodeQuery(self.query, self.last_slots, self.positions, self.stored_positions, rule)


def random_cache(head_dim: int, group: int, *, per_head: bool) -> RandomCache:
    """Lanes of 70 slots, of which 1 to 70 are live; the others hold what must not be read."""
    torch.manual_seed(head_dim + group)
    rows, capacity = 5, 70
    last_slots = torch.tensor([0, 1, 16, 37, 69])
    stored = torch.rand(rows, NUM_KV_HEADS if per_head else 1, 200).argsort(-1)[..., :capacity]
    keys, values = torch.randn(2, rows, NUM_KV_HEADS, capacity, head_dim).unbind()
    dead = torch.arange(capacity) > last_slots[:, None]
    keys[dead[:, None].expand(-1, NUM_KV_HEADS, -1)] = torch.nan
    values[dead[:, None].expand(-1, NUM_KV_HEADS, -1)] = torch.nan
    newest = last_slots[:, None, None].expand(-1, stored.shape[1], 1)
    return RandomCache(
        query=torch.randn(rows, NUM_KV_HEADS * group, 1, head_dim) * 3,
        keys=keys,
        values=values,
        last_slots=last_slots,
        positions=torch.full((rows,), 200),
        # As in the arena, the newest token stands at its own position.
        stored_positions=stored.sort(-1).values.scatter(-1, newest, 200).int(),
    )


def written_out(cache: RandomCache, rule: AttentionRule) -> torch.Tensor:
    visible = torch.arange(cache.keys.shape[2]) <= cache.last_slots[:, None, None, None]
    if rule.sliding_window is not None:
        oldest = (cache.positions - rule.sliding_window)[:, None, None, None]
        visible = visible & (cache.stored_positions[:, :, None] > oldest)
    mask = additive_mask(visible, torch.float32)
    probs = attention_probs(cache.query, cache.keys.nan_to_num(), mask, rule)
    output = torch.einsum("rhgts,rhsd->rhgtd", probs, cache.values.nan_to_num())
    return output.reshape(cache.query.shape)
