"""The decode attention in C, for float32 and bfloat16 on a CPU.

torch's attention is made for many queries. With one query per row, this reads the cache more than
twice as fast, and each row only as far as it reaches. It unpacks packed keys and values on the way.
Axes as in kvcache/__init__.py.
"""

import ctypes

import torch

from dynts_batch.engine.attention.decode_query import DecodeQuery
from dynts_batch.kvcache.native import function, operation, padded
from dynts_batch.kvcache.stores.native_packed import SOURCES as PACKED_SOURCES
from dynts_batch.kvcache.stores.native_packed import CStore, NativePackedStore
from dynts_batch.kvcache.stores.packed import PackedStore
from dynts_batch.kvcache.stores.plain import head_strides

SOURCE = "decode_attention.c"
#: The code for keys and values of each type.
SOURCES = {torch.float32: SOURCE, torch.bfloat16: "decode_attention_bf16.c"}


def decode_attention(asked: DecodeQuery, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """`FusedDecode`."""
    query, *places, rule = asked
    return _decode_attention(
        query, keys, values, *places, rule.sinks, rule.sliding_window, rule.scale
    )


def attend_packed(asked: DecodeQuery, store: PackedStore, *, max_len: int) -> torch.Tensor:
    """`PackedDecode`."""
    assert isinstance(store, NativePackedStore), "the C code takes no other's parts"
    query, *places, rule = asked
    how = (rule.sinks, rule.sliding_window, rule.scale)
    return _packed_attention(*store.parts, query, *places, *how, max_len)


@operation(
    "decode_attention(Tensor query, Tensor keys, Tensor values, Tensor last_slots, Tensor"
    " positions, Tensor stored_positions, Tensor? sinks, int? sliding_window, float scale) ->"
    " Tensor"
)
def _decode_attention(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    last_slots: torch.Tensor,
    positions: torch.Tensor,
    stored_positions: torch.Tensor,
    sinks: torch.Tensor | None,
    sliding_window: int | None,
    scale: float,
) -> torch.Tensor:
    batch, num_heads, _, head_dim = query.shape
    num_kv_heads, num_slots = keys.shape[1:3]
    group = num_heads // num_kv_heads
    query, sinks = query.contiguous(), None if sinks is None else sinks.float().contiguous()
    out, (stride, scratch) = torch.empty_like(query), _scratch(group, num_slots)
    function(SOURCES[query.dtype], "decode_attention", "ppppppppplllllllllllf")(
        out.data_ptr(), query.data_ptr(), keys.data_ptr(), values.data_ptr(), last_slots.data_ptr(),
        positions.data_ptr(), stored_positions.data_ptr(),
        None if sinks is None else sinks.data_ptr(),
        scratch.data_ptr(), batch, num_kv_heads, group, head_dim, keys.stride(0), keys.stride(1),
        *head_strides(stored_positions), sliding_window or 0, stride, torch.get_num_threads(),
        scale,
    )  # fmt: skip
    return out


@operation(
    "packed_attention(Tensor codes, Tensor scales, Tensor? zero_points, Tensor buffer, Tensor?"
    " is_ternary, int bits, Tensor query, Tensor last_slots, Tensor positions, Tensor"
    " stored_positions, Tensor? sinks, int? sliding_window, float scale, int max_len) -> Tensor"
)
def _packed_attention(
    codes: torch.Tensor,
    scales: torch.Tensor,
    zero_points: torch.Tensor | None,
    buffer: torch.Tensor,
    is_ternary: torch.Tensor | None,
    bits: int,
    query: torch.Tensor,
    last_slots: torch.Tensor,
    positions: torch.Tensor,
    stored_positions: torch.Tensor,
    sinks: torch.Tensor | None,
    sliding_window: int | None,
    scale: float,
    max_len: int,
) -> torch.Tensor:
    store = CStore.of(codes, scales, zero_points, buffer, is_ternary, bits)
    group = query.shape[1] // buffer.shape[2]
    query, sinks = query.contiguous(), None if sinks is None else sinks.float().contiguous()
    out, (stride, scratch) = torch.empty_like(query), _scratch(group, max_len)
    function(PACKED_SOURCES[query.dtype], "packed_attention", "pppppppplllllllf")(
        out.data_ptr(), query.data_ptr(), ctypes.addressof(store), last_slots.data_ptr(),
        positions.data_ptr(),
        stored_positions.data_ptr(), None if sinks is None else sinks.data_ptr(),
        scratch.data_ptr(), len(query), group,
        *head_strides(stored_positions), sliding_window or 0, stride, torch.get_num_threads(),
        scale,
    )  # fmt: skip
    return out


def _scratch(group: int, num_slots: int) -> tuple[int, torch.Tensor]:
    """Scratch for the logits of a group of query heads, for each thread, and the stride of its
    heads."""
    stride = padded(num_slots)
    # torch may bring its own OpenMP, so its number of threads is passed on.
    return stride, torch.empty(torch.get_num_threads() * group * stride)
