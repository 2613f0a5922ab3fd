"""Decode attention over quantised keys and values on a GPU, in Triton.

Codes are read once and dequantised in registers. Runs and their join are those of triton_plain.py.
A row's complete groups are cut into runs, and its last run also attends to the buffer. GROUP is G;
a group of 16 tokens is a quantised one.
"""

import torch
import triton
import triton.language as tl

from dynts_batch.engine.attention.decode_query import DecodeQuery
from dynts_batch.engine.attention.triton_plain import (
    BLOCK_SLOTS,
    Runs,
    add_values,
    in_window,
    load_query,
    preferred_splits,
    store_run,
    weigh,
)
from dynts_batch.kvcache.stores.formats import GROUP as TOKENS
from dynts_batch.kvcache.stores.packed import PackedStore
from dynts_batch.kvcache.stores.plain import head_strides
from dynts_batch.kvcache.stores.triton_formats import factors, from_zero_points, unit
from dynts_batch.kvcache.stores.triton_packed import TritonPackedStore, load_numbers


@triton.jit
def _load_keys(  # type: ignore[no-untyped-def]
    codes, scales, zero_points, first, stop, is_ternary,
    HEAD_DIM: tl.constexpr, DIMS: tl.constexpr, SLOTS: tl.constexpr, BITS: tl.constexpr,
    HAS_ZERO_POINT: tl.constexpr, HAS_TERNARY: tl.constexpr,
):  # fmt: skip
    """float32 keys [SLOTS, DIMS] over their unit, of slots `first`..`stop` - 1.

    Each channel of a group has a scale.
    """
    slot = first + tl.arange(0, SLOTS)
    numbers = load_numbers(
        codes, slot, slot < stop, is_ternary, HEAD_DIM, DIMS, BITS, HAS_ZERO_POINT, HAS_TERNARY
    ).reshape(SLOTS // 16, 16, DIMS)
    group, dim = first // 16 + tl.arange(0, SLOTS // 16), tl.arange(0, DIMS)
    is_scale = (group * 16 < stop)[:, None] & (dim < HEAD_DIM)[None, :]
    at = group[:, None] * HEAD_DIM + dim[None, :]
    if HAS_ZERO_POINT:
        begins = from_zero_points(tl.load(zero_points + at, mask=is_scale, other=0))
        numbers += begins[:, None, :]
    own = factors(tl.load(scales + at, mask=is_scale, other=0), HAS_ZERO_POINT)
    return (numbers * own[:, None, :]).reshape(SLOTS, DIMS)


@triton.jit
def _load_values(  # type: ignore[no-untyped-def]
    codes, scales, first, stop, is_ternary,
    HEAD_DIM: tl.constexpr, DIMS: tl.constexpr, SLOTS: tl.constexpr, BITS: tl.constexpr,
    HAS_TERNARY: tl.constexpr,
):  # fmt: skip
    """float32 values [SLOTS, DIMS] over their unit, of slots `first`..`stop` - 1.

    Each 16 channels of a token have a scale.
    """
    slot = first + tl.arange(0, SLOTS)
    numbers = load_numbers(
        codes, slot, slot < stop, is_ternary, HEAD_DIM, DIMS, BITS, False, HAS_TERNARY
    ).reshape(SLOTS, DIMS // 16, 16)
    part = tl.arange(0, DIMS // 16)
    is_scale = (slot < stop)[:, None] & (part < HEAD_DIM // 16)[None, :]
    at = slot[:, None] * (HEAD_DIM // 16) + part[None, :]
    own = factors(tl.load(scales + at, mask=is_scale, other=0), False)
    return (numbers * own[:, :, None]).reshape(SLOTS, DIMS)


@triton.jit
def _attend_packed_run(  # type: ignore[no-untyped-def]
    query, key_codes, key_scales, zero_points, key_buffer, value_codes, value_scales, value_buffer,
    ternary, last_slots, positions, stored, out, tops, totals,
    scale, window, num_splits, num_groups, ternary_lane_stride, ternary_head_stride,
    stored_lane_stride, stored_head_stride,
    NUM_KV_HEADS: tl.constexpr, GROUP: tl.constexpr, HEAD_DIM: tl.constexpr,
    ROWS: tl.constexpr, DIMS: tl.constexpr, SLOTS: tl.constexpr,
    KEY_BITS: tl.constexpr, VALUE_BITS: tl.constexpr,
    HAS_ZERO_POINT: tl.constexpr, HAS_TERNARY: tl.constexpr, HAS_WINDOW: tl.constexpr,
):  # fmt: skip
    """One run of slots of one key/value head of one row. The last run goes on to the buffer.

    Codes are in words of 32 bits.
    """
    row, split = tl.program_id(0).to(tl.int64), tl.program_id(1)
    lane, head = row // NUM_KV_HEADS, row % NUM_KV_HEADS
    length = tl.load(last_slots + lane) + 1
    begin = length // 16 * 16  # of the buffer
    run = tl.cdiv(tl.cdiv(begin, num_splits), SLOTS) * SLOTS
    start = split * run
    stop = tl.minimum(start + run, begin)

    group = row * num_groups  # the head's first
    key_codes += group * (HEAD_DIM * KEY_BITS // 2)
    value_codes += group * (HEAD_DIM * VALUE_BITS // 2)
    key_scales += group * HEAD_DIM
    zero_points += group * HEAD_DIM
    value_scales += group * HEAD_DIM
    ternary += lane * ternary_lane_stride + head * ternary_head_stride
    stored += lane * stored_lane_stride + head * stored_head_stride
    if HAS_WINDOW:
        oldest = tl.load(positions + lane) - window

    q = load_query(query, row, GROUP, HEAD_DIM, ROWS, DIMS)
    top = tl.full([ROWS], -1e30, tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, DIMS], tl.float32)
    for first in range(start, stop, SLOTS):
        slot = first + tl.arange(0, SLOTS)
        is_live = slot < stop
        is_ternary = is_live
        if HAS_TERNARY:
            is_ternary = tl.load(ternary + slot // 16, mask=is_live, other=0) != 0
        if HAS_WINDOW:
            is_live = in_window(stored, slot, is_live, oldest)
        k = _load_keys(
            key_codes, key_scales, zero_points, first, stop, is_ternary,
            HEAD_DIM, DIMS, SLOTS, KEY_BITS, HAS_ZERO_POINT, HAS_TERNARY,
        ).to(q.dtype)  # fmt: skip
        key_scale = scale * unit(KEY_BITS, HAS_ZERO_POINT)
        weights, shrink, top, total = weigh(q, k, is_live, key_scale, top, total)
        v = _load_values(
            value_codes, value_scales, first, stop, is_ternary,
            HEAD_DIM, DIMS, SLOTS, VALUE_BITS, HAS_TERNARY,
        ).to(q.dtype)  # fmt: skip
        acc = add_values(acc, shrink, weights, v)
    acc *= unit(VALUE_BITS, False)
    if split == num_splits - 1:
        place, dim = tl.arange(0, 16), tl.arange(0, DIMS)
        is_live = begin + place < length
        offsets = (row * 16 + place[:, None]) * HEAD_DIM + dim[None, :]
        is_stored = is_live[:, None] & (dim < HEAD_DIM)[None, :]
        if HAS_WINDOW:
            is_live = in_window(stored, begin + place, is_live, oldest)
        k = tl.load(key_buffer + offsets, mask=is_stored, other=0.0)
        weights, shrink, top, total = weigh(q, k, is_live, scale, top, total)
        v = tl.load(value_buffer + offsets, mask=is_stored, other=0.0)
        acc = add_values(acc, shrink, weights, v)
    store_run(
        out, tops, totals, acc, top, total, row, split, num_splits, GROUP, HEAD_DIM, ROWS, DIMS
    )


def attend_packed(
    asked: DecodeQuery, store: PackedStore, *, max_len: int, num_splits: int | None = None
) -> torch.Tensor:
    """`PackedDecode`; `num_splits` as in triton_plain.py.

    Each row is read as far as it reaches. `max_len` only bounds how far that is.
    """
    query, *places, rule = asked
    assert isinstance(store, TritonPackedStore), "the kernel takes no other's parts"
    num_kv_heads, (keys, values) = store.buffer.shape[2], store.form
    num_rows = len(query) * num_kv_heads
    splits = num_splits or preferred_splits(num_rows, store.num_groups * TOKENS)
    runs = Runs(query.contiguous(), num_kv_heads, splits)
    codes, (strides, marks) = store.codes.view(torch.int32), store.ternary_marks
    _attend_packed_run[(num_rows, splits)](
        runs.query, codes[0], store.scales[0], store.zero_points if keys.has_zero_point else marks,
        store.buffer[0], codes[1], store.scales[1], store.buffer[1], marks, *places,
        *runs.results, rule.scale, rule.sliding_window or 0, splits,
        store.num_groups, *strides, *head_strides(asked.stored_positions), num_kv_heads, runs.group,
        query.shape[-1], *runs.padded, BLOCK_SLOTS, keys.bits, values.bits,
        keys.has_zero_point, store.is_ternary is not None, rule.sliding_window is not None,
    )  # fmt: skip
    return runs.join(rule.sinks)
