"""Decode attention over quantised keys and values. They are dequantised a run of slots at a time.

In torch, so on any device: a float32 softmax is carried from run to run. Axes as in
kvcache/__init__.py.
"""

from collections.abc import Iterator

import torch

from dynts_batch.engine.attention.decode_query import DecodeQuery
from dynts_batch.kvcache.probs import attention_logits
from dynts_batch.kvcache.stores.formats import GROUP
from dynts_batch.kvcache.stores.packed import PackedStore

#: Groups that are dequantised at a time.
RUN_GROUPS = 16

#: Keys and values [R, H, S, D] of a run, and which of its slots each row sees, [R, H or 1, S].
Run = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def attend_packed(asked: DecodeQuery, store: PackedStore, *, max_len: int) -> torch.Tensor:
    """`PackedDecode`."""
    query, rule = asked.states, asked.rule
    batch, num_heads, _, head_dim = query.shape
    num_kv_heads = store.buffer.shape[2]
    shape = (batch, num_kv_heads, num_heads // num_kv_heads, 1)
    # A sink is a logit that comes before all others and gives nothing.
    top = query.new_full((*shape, 1), -1e30, dtype=torch.float32)
    total = torch.zeros_like(top)
    if rule.sinks is not None:
        top, total = rule.sinks.float().view(1, *shape[1:], 1).expand_as(top), total + 1
    output = query.new_zeros((*shape, head_dim), dtype=torch.float32)
    visible = _visible(asked)
    for keys, values, seen in _runs(store, asked.last_slots, visible, max_len):
        logits = attention_logits(query.float(), keys.float(), rule.scale)
        logits = logits.masked_fill(~seen[:, :, None, None], -torch.inf)
        new_top = torch.maximum(top, logits.amax(-1, keepdim=True))
        weights, fade = (logits - new_top).exp(), (top - new_top).exp()
        output = output * fade + torch.einsum("rhgts,rhsd->rhgtd", weights, values.float())
        total = total * fade + weights.sum(-1, keepdim=True)
        top = new_top
    return (output / total).view(query.shape).to(query.dtype)


def _visible(asked: DecodeQuery) -> torch.Tensor:
    """Which slots each row sees, bool [R, H or 1, C]."""
    stored, window = asked.stored_positions, asked.rule.sliding_window
    slot = torch.arange(stored.shape[-1], device=stored.device)
    visible = slot <= asked.last_slots[:, None, None]
    if window is None:
        return visible
    return visible & (stored > (asked.positions - window)[:, None, None])


def _runs(
    store: PackedStore, last_slots: torch.Tensor, visible: torch.Tensor, max_len: int
) -> Iterator[Run]:
    """The packed slots in order, then the buffers."""
    lanes = slice(len(last_slots))
    begin = ((last_slots + 1) // GROUP * GROUP)[:, None, None]  # of the buffer
    slot = torch.arange(visible.shape[-1], device=visible.device)
    is_packed = visible & (slot < begin)
    for first in range(0, max_len // GROUP, RUN_GROUPS):
        groups = slice(first, min(first + RUN_GROUPS, max_len // GROUP))
        keys, values = (store.groups(part, lanes, groups) for part in range(2))
        yield keys, values, is_packed[..., groups.start * GROUP : groups.stop * GROUP]
    slots = begin + torch.arange(GROUP, device=begin.device)
    index = slots.clamp(max=visible.shape[-1] - 1).expand(-1, visible.shape[1], -1)
    in_buffer = visible.gather(-1, index) & (slots <= last_slots[:, None, None])
    yield store.buffer[0][lanes], store.buffer[1][lanes], in_buffer
