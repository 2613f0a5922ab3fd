"""Attention over the arena, plugged into transformers' attention interface.

The model's layers call `arena_attention` with freshly projected states and the forward keyword
`kv_step`. `kv_step` says where those states go and what they attend to. No mask function is
registered, so transformers builds no mask, and the model needs no change. Axes as in
kvcache/__init__.py.
"""

from functools import cache
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch.nn.attention.bias import causal_lower_right
from transformers import AttentionInterface

from dynts_batch.engine.attention import native as native_attention
from dynts_batch.engine.attention import packed as packed_attention
from dynts_batch.engine.attention.decode_query import DecodeQuery, FusedDecode, PackedDecode
from dynts_batch.engine.attention.padding import Padding
from dynts_batch.engine.recording import Observe
from dynts_batch.kvcache import devices, native
from dynts_batch.kvcache.arena import KVArena
from dynts_batch.kvcache.arena_shape import ArenaShape
from dynts_batch.kvcache.layer_states import AttentionRule, LayerStates
from dynts_batch.kvcache.probs import additive_mask, attention_probs
from dynts_batch.kvcache.stores.native_packed import SOURCE as PACKED_SOURCE
from dynts_batch.kvcache.stores.native_packed import SOURCES as PACKED_SOURCES
from dynts_batch.kvcache.stores.packed import PackedStore

ATTENTION_NAME = "dynts_arena"
#: Queries that causal attention in torch takes at a time.
CAUSAL_QUERIES = 256


class KVStep(Protocol):
    """Where one forward pass stores its keys and values, and what it attends to."""

    def attend(self, states: LayerStates) -> torch.Tensor:
        """Store key and value of one layer's new tokens. Return their queries' attention [R, Q, T,
        D]."""
        ...


@cache
def register_attention() -> str:
    """Register `arena_attention` with transformers, once, and return its name."""
    AttentionInterface.register(ATTENTION_NAME, arena_attention)
    return ATTENTION_NAME


def arena_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    kv_step: KVStep,
    scaling: float,
    sliding_window: int | None = None,
    s_aux: torch.Tensor | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention function.

    query [R, Q, T, D], key and value [R, H, T, D] -> [R, T, Q, D].
    """
    assert attention_mask is None, "the arena attends by slots and takes no mask"
    rule = AttentionRule(scaling, sliding_window, s_aux)
    states = LayerStates(module.layer_idx, query, key, value, rule)
    return kv_step.attend(states).transpose(1, 2).contiguous(), None


@cache
def fused_decode(shape: ArenaShape, device: torch.device) -> FusedDecode | None:
    """The kernel for such keys and values. None: torch's attention does it."""
    if shape.stored_in:
        return None
    if devices.runs_triton(device):
        from dynts_batch.engine.attention.triton_plain import decode_attention

        return decode_attention
    source = native_attention.SOURCES.get(shape.dtype, native_attention.SOURCE)
    can_run = native.can_run(source, shape.dtype, device, shape.head_dim)
    return native_attention.decode_attention if can_run else None


@cache
def packed_decode(shape: ArenaShape, device: torch.device) -> PackedDecode:
    """The kernel for such packed keys and values, or torch's attention."""
    if devices.runs_triton(device):
        from dynts_batch.engine.attention.triton_packed import attend_packed

        return attend_packed
    source = PACKED_SOURCES.get(shape.dtype, PACKED_SOURCE)
    can_run = native.can_run(source, shape.dtype, device, shape.head_dim)
    return native_attention.attend_packed if can_run else packed_attention.attend_packed


def asks_nothing(shape: ArenaShape, device: torch.device) -> bool:
    """Whether decode attention over such keys and values reads nothing on the host.

    Then a step can be repeated.
    """
    if shape.stored_in:
        return packed_decode(shape, device) is not packed_attention.attend_packed
    return fused_decode(shape, device) is not None


class PrefillStep:
    """A chunk of prompts, right-padded to a common length, in lanes that hold the `start` tokens
    before it.

    Causal attention hides the padding from every real token, so it needs no mask. With `padding`
    the layers have no padded tokens, and hand over states of one row.
    """

    def __init__(
        self,
        arena: KVArena,
        lanes: torch.Tensor,
        lengths: torch.Tensor,
        start: int = 0,
        observe: Observe | None = None,
        padding: Padding | None = None,
    ) -> None:
        self._arena, self._lanes, self._lengths = arena, lanes, lengths
        self._start, self._observe, self._padding = start, observe, padding

    def attend(self, states: LayerStates) -> torch.Tensor:
        if (padding := self._padding) is None:
            return self._attend(states)
        query, key, value = (
            padding.add(packed[0].transpose(0, 1)).transpose(1, 2)
            for packed in (states.query, states.key, states.value)
        )
        output = self._attend(states._replace(query=query, key=key, value=value))
        return padding.remove(output.transpose(1, 2)).transpose(0, 1)[None]

    def _attend(self, states: LayerStates) -> torch.Tensor:
        layer, query, key, value, rule = states
        self._arena.write_prompt(layer, self._lanes, self._lengths, key, value, self._start)
        if self._observe is not None:
            self._observe(states)
        if self._start:
            key = torch.cat((self._arena.keys(layer, self._lanes, self._start), key), dim=2)
            value = torch.cat((self._arena.values(layer, self._lanes, self._start), value), dim=2)
        return attend_causal(query, key, value, rule)


class DecodeStep:
    """One new token per lane: store it in `slots` [R], then attend over the lane. `positions` [R].

    The first R lanes are read in place. A fused kernel reads each as far as it reaches. torch's
    attention reads all up to the longest, which is `max_len` slots with the new one. If the lanes
    differ (`is_ragged`), a mask hides the slots beyond a shorter lane's end, and those of tokens
    that have left a sliding window.
    """

    def __init__(
        self,
        arena: KVArena,
        slots: torch.Tensor,
        positions: torch.Tensor,
        observe: Observe | None = None,
        *,
        max_len: int,
        is_ragged: bool,
    ) -> None:
        self._arena, self._slots, self._positions = arena, slots, positions
        self._observe = observe
        self._max_len, self._is_ragged = max_len, is_ragged
        self._masks: dict[tuple[int | None, int], torch.Tensor | None] = {}
        self._fused = fused_decode(arena.shape, slots.device)

    def attend(self, states: LayerStates) -> torch.Tensor:
        layer, query, key, value, rule = states
        self._arena.append(layer, self._slots, key, value)
        if self._observe is not None:
            self._observe(states)
        asked = DecodeQuery(
            query, self._slots, self._positions, self._stored_positions(layer), rule
        )
        store = self._arena.layers[layer]
        if isinstance(store, PackedStore):
            attend_packed = packed_decode(self._arena.shape, self._slots.device)
            return attend_packed(asked, store, max_len=self._max_len)
        if self._fused is not None:
            return self._fused(
                asked, *self._arena.stored(layer, len(self._slots), self._arena.capacity)
            )
        keys, values = self._arena.stored(layer, len(self._slots), self._max_len)
        mask = self._mask(layer, rule.sliding_window)
        if rule.sinks is not None:
            return attend_masked(query, keys, values, mask, rule)
        # The query heads of a group become query rows of their key/value head, so nothing is
        # repeated.
        grouped = query.view(len(query), keys.shape[1], -1, query.shape[-1])
        output = F.scaled_dot_product_attention(
            grouped, keys, values, attn_mask=mask, scale=rule.scale
        )
        return output.reshape(query.shape)

    def _stored_positions(self, layer: int) -> torch.Tensor:
        """Positions of the slots of `layer`, [R, H or 1, C]."""
        return self._arena.positions_of(layer)[: len(self._slots)]

    def _mask(self, layer: int, window: int | None) -> torch.Tensor | None:
        """Additive mask [R, 1 or H, 1, S] of a layer, made once for all layers that share it.

        None: all is visible.
        """
        shared = (window, layer if window is not None and self._arena.shape.per_head else 0)
        if shared not in self._masks:
            self._masks[shared] = self._make_mask(*shared)
        return self._masks[shared]

    def _make_mask(self, window: int | None, layer: int) -> torch.Tensor | None:
        if window is None and not self._is_ragged:
            return None
        slot = torch.arange(self._max_len, device=self._slots.device)
        visible = slot <= self._slots[:, None, None, None]
        if window is not None:
            stored = self._stored_positions(layer)[:, :, None, : self._max_len]
            visible = visible & (stored > (self._positions - window)[:, None, None, None])
        return additive_mask(visible, self._arena.shape.dtype)


def attend_causal(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, rule: AttentionRule
) -> torch.Tensor:
    """Causal attention of the newest T of S tokens, [R, Q, T, D], to all S, [R, H, S, D].

    Returns [R, Q, T, D].
    """
    num_queries, length, window = query.shape[2], key.shape[2], rule.sliding_window
    if rule.sinks is None and (window is None or length <= window):
        # is_causal would align the first query with the first key.
        bias = None if num_queries == length else causal_lower_right(num_queries, length)
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask=bias, is_causal=bias is None, scale=rule.scale,
            enable_gqa=True
        )  # fmt: skip
    # In runs of queries, so memory grows with the length, not with its square.
    outputs = []
    older = length - num_queries
    for start in range(older, length, CAUSAL_QUERIES):
        stop = min(start + CAUSAL_QUERIES, length)
        first = 0 if window is None else max(0, start + 1 - window)
        position = torch.arange(first, stop, device=query.device)
        mask = causal_mask(position[start - first :], position, window, query.dtype)
        queries = query[:, :, start - older : stop - older]
        seen = (queries, key[:, :, first:stop], value[:, :, first:stop])
        outputs.append(attend_masked(*seen, mask, rule))
    return torch.cat(outputs, dim=2)


def causal_mask(
    query_positions: torch.Tensor,
    key_positions: torch.Tensor,
    window: int | None,
    dtype: torch.dtype,
) -> torch.Tensor:
    """Additive mask [T, S]: a query sees its own and earlier positions, at most the newest
    `window`."""
    distance = query_positions[:, None] - key_positions
    visible = distance >= 0
    if window is not None:
        visible &= distance < window
    return additive_mask(visible, dtype)


def attend_masked(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mask: torch.Tensor | None,
    rule: AttentionRule,
) -> torch.Tensor:
    """Attention written out, for layers with sinks.

    query [R, Q, T, D], keys and values [R, H, S, D], `mask` broadcastable to [R, H, T, S] -> [R, Q,
    T, D].
    """
    probs = attention_probs(query, keys, mask, rule).to(values.dtype)
    return torch.einsum("rhgts,rhsd->rhgtd", probs, values).reshape(query.shape)
