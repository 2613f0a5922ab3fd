"""Attention written out: the softmax of queries over stored keys, for sinks, statistics and labels.

Axes as in kvcache/__init__.py. Knows nothing about the model's own fast attention, nor about its
readers.
"""

import torch

from dynts_batch.kvcache.layer_states import AttentionRule

#: Most bytes of attention that `attention_received` holds at once. One query per row is always
#: held.
CHUNK_BYTES = 64 * 2**20


def attention_logits(query: torch.Tensor, keys: torch.Tensor, scale: float) -> torch.Tensor:
    """Scaled products as float32, [R, H, G, T, S], of `query` [R, Q, T, D] and `keys` [R, H, S, D].

    They are multiplied in their own type, which rounds each product.
    """
    rows, num_heads, length, head_dim = query.shape
    num_kv_heads = keys.shape[1]
    grouped = query.reshape(rows, num_kv_heads, num_heads // num_kv_heads, length, head_dim)
    return torch.einsum("rhgtd,rhsd->rhgts", grouped, keys).float() * scale


def attention_probs(
    query: torch.Tensor, keys: torch.Tensor, mask: torch.Tensor | None, rule: AttentionRule
) -> torch.Tensor:
    """Softmax attention in float32, [R, H, G, T, S].

    `mask` is added to the logits, broadcastable to [R, H, T, S]. A sink is one more logit, which
    takes mass and gives nothing. With sinks the last axis sums to less than 1.
    """
    logits = attention_logits(query, keys, rule.scale)
    if mask is not None:
        logits += mask.unsqueeze(-3)  # the same for all query heads of a group
    if rule.sinks is None:
        return logits.softmax(dim=-1)
    sinks = rule.sinks.float().view(1, keys.shape[1], -1, 1, 1).expand(*logits.shape[:-1], 1)
    return torch.cat((logits, sinks), dim=-1).softmax(dim=-1)[..., :-1]


def additive_mask(visible: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """0 where `visible`, else minus infinity."""
    return torch.zeros_like(visible, dtype=dtype).masked_fill_(~visible, -torch.inf)


def visible_slots(
    query_positions: torch.Tensor,
    slot_positions: torch.Tensor,
    cache_len: torch.Tensor,
    window: int | None,
) -> torch.Tensor:
    """Which live slots a query sees, bool [R, H or 1, T, S].

    It sees its own and earlier positions, and only the newest `window` of them if that is given.
    `query_positions` [R, T], `slot_positions` [R, H or 1, S], `cache_len` [R].
    """
    slot = torch.arange(slot_positions.shape[-1], device=slot_positions.device)
    distance = query_positions[:, None, :, None] - slot_positions[:, :, None, :]
    visible = (distance >= 0) & (slot < cache_len[:, None, None, None])
    return visible if window is None else visible & (distance < window)


def attention_received(
    query: torch.Tensor,
    keys: torch.Tensor,
    query_positions: torch.Tensor,
    slot_positions: torch.Tensor,
    cache_len: torch.Tensor,
    rule: AttentionRule,
) -> torch.Tensor:
    """Attention that each slot gets from all T queries and the query heads of its group, float32
    [R, H, S].

    Shapes as in `visible_slots`. A query at a negative position is padding and gives nothing. The
    queries are taken in chunks, so memory grows with S, not with T x S.
    """
    rows, num_heads, length, _ = query.shape
    total = torch.zeros(keys.shape[:3], dtype=torch.float32, device=keys.device)
    queries_per_chunk = max(1, CHUNK_BYTES // (4 * rows * num_heads * keys.shape[2]))
    for chunk in torch.arange(length, device=query.device).split(queries_per_chunk):
        positions = query_positions[:, chunk]
        visible = visible_slots(
            positions.clamp(min=0), slot_positions, cache_len, rule.sliding_window
        )
        mask = additive_mask(visible, query.dtype)
        probs = attention_probs(query[:, :, chunk], keys, mask, rule)
        total += (probs * (positions >= 0)[:, None, None, :, None]).sum(dim=(2, 3))
    return total
