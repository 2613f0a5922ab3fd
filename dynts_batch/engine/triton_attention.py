"""The decode attention on a GPU, in Triton: each row reads its own live slots once, in place.

A row is cut into `num_splits` runs of slots, so that a few rows keep the whole GPU busy; a second kernel joins them. All
shapes are static and nothing is asked of the host, so that a CUDA graph can hold a step. Needs nothing but tensors: checked
without a GPU by Triton's interpreter.

Letters: B rows, K key/value heads, G query heads of each, D head_dim, S slots.
"""

from functools import cache

import torch
import triton
import triton.language as tl

from dynts_batch.kvcache.probs import Options

BLOCK_SLOTS = 64
#: `tl.dot` takes no fewer rows; a group with fewer query heads leaves the rest unused.
MIN_ROWS = 16
#: Programs per multiprocessor that hide memory latency.
PROGRAMS_PER_SM = 4
MAX_SPLITS = 64


@triton.jit
def _attend_run(  # type: ignore[no-untyped-def]
    query, keys, values, last_slots, positions, stored, out, tops, totals,
    scale, window, lane_stride, head_stride, stored_lane_stride, stored_head_stride,
    NUM_KV_HEADS: tl.constexpr, GROUP: tl.constexpr, HEAD_DIM: tl.constexpr,
    ROWS: tl.constexpr, DIMS: tl.constexpr, SLOTS: tl.constexpr, NUM_SPLITS: tl.constexpr,
    HAS_WINDOW: tl.constexpr,
):  # fmt: skip
    """One run of slots of one key/value head of one row: its unnormalised output, largest logit and sum of weights."""
    row, split = tl.program_id(0).to(tl.int64), tl.program_id(1)
    lane, head = row // NUM_KV_HEADS, row % NUM_KV_HEADS
    length = tl.load(last_slots + lane) + 1
    run = tl.cdiv(tl.cdiv(length, NUM_SPLITS), SLOTS) * SLOTS
    start = split * run
    stop = tl.minimum(start + run, length)

    group, dim = tl.arange(0, ROWS), tl.arange(0, DIMS)
    is_query = (group < GROUP)[:, None] & (dim < HEAD_DIM)[None, :]
    q = tl.load(
        query + (row * GROUP + group[:, None]) * HEAD_DIM + dim[None, :], mask=is_query, other=0.0
    )
    top = tl.full([ROWS], -1e30, tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, DIMS], tl.float32)
    base = lane * lane_stride + head * head_stride
    for first in range(start, stop, SLOTS):
        slot = first + tl.arange(0, SLOTS)
        is_live = slot < stop
        offsets = base + slot[:, None] * HEAD_DIM + dim[None, :]
        is_stored = is_live[:, None] & (dim < HEAD_DIM)[None, :]
        k = tl.load(keys + offsets, mask=is_stored, other=0.0)
        logits = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        if HAS_WINDOW:
            at = tl.load(
                stored + lane * stored_lane_stride + head * stored_head_stride + slot,
                mask=is_live, other=0,
            )  # fmt: skip
            is_live = is_live & (at > tl.load(positions + lane) - window)
        logits = tl.where(is_live[None, :], logits, -1e30)
        new_top = tl.maximum(top, tl.max(logits, axis=1))
        weights = tl.where(is_live[None, :], tl.exp(logits - new_top[:, None]), 0.0)
        shrink = tl.exp(top - new_top)
        v = tl.load(values + offsets, mask=is_stored, other=0.0)
        acc = acc * shrink[:, None] + tl.dot(weights.to(v.dtype), v, input_precision="ieee")
        total = total * shrink + tl.sum(weights, axis=1)
        top = new_top
    place = (row * NUM_SPLITS + split) * GROUP + group
    tl.store(out + place[:, None] * HEAD_DIM + dim[None, :], acc, mask=is_query)
    tl.store(tops + place, top, mask=group < GROUP)
    tl.store(totals + place, total, mask=group < GROUP)


@triton.jit
def _join_runs(  # type: ignore[no-untyped-def]
    partial, tops, totals, sinks, out,
    NUM_KV_HEADS: tl.constexpr, GROUP: tl.constexpr, HEAD_DIM: tl.constexpr, DIMS: tl.constexpr,
    NUM_SPLITS: tl.constexpr, PADDED_SPLITS: tl.constexpr, HAS_SINKS: tl.constexpr,
):  # fmt: skip
    """One query head of one row: the softmax over all its runs, and over its sink, which gives nothing."""
    row, g = tl.program_id(0).to(tl.int64), tl.program_id(1)
    split, dim = tl.arange(0, PADDED_SPLITS), tl.arange(0, DIMS)
    place = (row * NUM_SPLITS + split) * GROUP + g
    is_split = split < NUM_SPLITS
    top = tl.load(tops + place, mask=is_split, other=-1e30)
    total = tl.load(totals + place, mask=is_split, other=0.0)
    highest = tl.max(top, axis=0)
    if HAS_SINKS:
        sink = tl.load(sinks + (row % NUM_KV_HEADS) * GROUP + g).to(tl.float32)
        highest = tl.maximum(highest, sink)
    share = tl.exp(top - highest)
    mass = tl.sum(total * share, axis=0)
    if HAS_SINKS:
        mass += tl.exp(sink - highest)
    is_partial = is_split[:, None] & (dim < HEAD_DIM)[None, :]
    runs = tl.load(partial + place[:, None] * HEAD_DIM + dim[None, :], mask=is_partial, other=0.0)
    result = tl.sum(runs * share[:, None], axis=0) / mass
    tl.store(
        out + (row * GROUP + g) * HEAD_DIM + dim,
        result.to(out.dtype.element_ty),
        mask=dim < HEAD_DIM,
    )


def decode_attention(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    last_slots: torch.Tensor,
    positions: torch.Tensor,
    stored_positions: torch.Tensor,
    options: Options,
    num_splits: int | None = None,
) -> torch.Tensor:
    """The same contract as that of `engine.native_attention`; `num_splits` None: as this GPU likes it for these shapes."""
    batch, num_heads, _, head_dim = query.shape
    num_kv_heads, num_slots = keys.shape[1:3]
    group = num_heads // num_kv_heads
    splits = num_splits or _num_splits(batch * num_kv_heads, num_slots)
    query, out = query.contiguous(), torch.empty_like(query, memory_format=torch.contiguous_format)
    partial, tops, totals = (
        torch.empty(batch * num_kv_heads * splits * group * size, dtype=torch.float32, device=query.device)
        for size in (head_dim, 1, 1)
    )  # fmt: skip
    sinks, dims = options.sinks, triton.next_power_of_2(head_dim)
    rows = max(MIN_ROWS, triton.next_power_of_2(group))
    _attend_run[(batch * num_kv_heads, splits)](
        query, keys, values, last_slots, positions, stored_positions, partial, tops, totals,
        options.scale, options.sliding_window or 0, keys.stride(0), keys.stride(1),
        stored_positions.stride(0), stored_positions.stride(1) if stored_positions.shape[1] > 1 else 0,
        num_kv_heads, group, head_dim, rows, dims, BLOCK_SLOTS, splits,
        options.sliding_window is not None,
    )  # fmt: skip
    _join_runs[(batch * num_kv_heads, group)](
        partial, tops, totals, out if sinks is None else sinks, out,
        num_kv_heads, group, head_dim, dims, splits, triton.next_power_of_2(splits), sinks is not None,
    )  # fmt: skip
    return out


@cache
def _num_splits(num_rows: int, num_slots: int) -> int:
    """As many runs as keep the GPU busy with so many rows, and none shorter than a block."""
    num_sms = torch.cuda.get_device_properties().multi_processor_count
    wanted = -(-PROGRAMS_PER_SM * num_sms // num_rows)
    return max(1, min(wanted, -(-num_slots // BLOCK_SLOTS), MAX_SPLITS))
