"""The decode attention on a GPU, in Triton: each row reads its own live slots once, in place.

A row is cut into `num_splits` runs of slots, so that a few rows keep the whole GPU busy. A second
kernel joins the runs. Their number is no constant of the kernels, else every batch size would be
compiled. All shapes are static and nothing is read on the host, so a CUDA graph can hold a step.
The kernels need only tensors, so Triton's interpreter tests them without a GPU.

Axes as in kvcache/__init__.py; GROUP is G.
"""

from functools import cache

import torch
import triton
import triton.language as tl

from dynts_batch.engine.attention.decode_query import DecodeQuery
from dynts_batch.kvcache.stores.plain import head_strides

BLOCK_SLOTS = 64
#: `tl.dot` takes no fewer rows. A group with fewer query heads leaves the rest unused.
MIN_ROWS = 16
#: Programs per multiprocessor that hide the latency of memory.
PROGRAMS_PER_SM = 4
MAX_SPLITS = 64


@triton.jit
def load_query(  # type: ignore[no-untyped-def]
    query, row,
    GROUP: tl.constexpr, HEAD_DIM: tl.constexpr, ROWS: tl.constexpr, DIMS: tl.constexpr,
):  # fmt: skip
    """The query heads of one key/value head of one row, [ROWS, DIMS], padded with zeros."""
    group, dim = tl.arange(0, ROWS), tl.arange(0, DIMS)
    is_query = (group < GROUP)[:, None] & (dim < HEAD_DIM)[None, :]
    offsets = (row * GROUP + group[:, None]) * HEAD_DIM + dim[None, :]
    return tl.load(query + offsets, mask=is_query, other=0.0)


@triton.jit
def in_window(stored, slot, is_live, oldest):  # type: ignore[no-untyped-def]
    """Which of the live slots hold positions beyond `oldest`. `stored` [S]: positions of a lane's
    slots."""
    return is_live & (tl.load(stored + slot, mask=is_live, other=0) > oldest)


@triton.jit
def weigh(q, k, is_live, scale, top, total):  # type: ignore[no-untyped-def]
    """Weights of keys `k` [S, DIMS] under the largest logits so far, which include theirs.

    Also: the factor by which all earlier weights shrink, the largest logits, and the sum of all
    weights.
    """
    logits = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
    logits = tl.where(is_live[None, :], logits, -1e30)
    new_top = tl.maximum(top, tl.max(logits, axis=1))
    weights = tl.where(is_live[None, :], tl.exp(logits - new_top[:, None]), 0.0)
    shrink = tl.exp(top - new_top)
    return weights, shrink, new_top, total * shrink + tl.sum(weights, axis=1)


@triton.jit
def add_values(acc, shrink, weights, v):  # type: ignore[no-untyped-def]
    return acc * shrink[:, None] + tl.dot(weights.to(v.dtype), v, input_precision="ieee")


@triton.jit
def store_run(  # type: ignore[no-untyped-def]
    out, tops, totals, acc, top, total, row, split, num_splits,
    GROUP: tl.constexpr, HEAD_DIM: tl.constexpr, ROWS: tl.constexpr, DIMS: tl.constexpr,
):  # fmt: skip
    """Store one run's part for `_join_runs`: its unnormalised output, largest logits and sums of
    weights."""
    group, dim = tl.arange(0, ROWS), tl.arange(0, DIMS)
    is_query = (group < GROUP)[:, None] & (dim < HEAD_DIM)[None, :]
    place = (row * num_splits + split) * GROUP + group
    tl.store(out + place[:, None] * HEAD_DIM + dim[None, :], acc, mask=is_query)
    tl.store(tops + place, top, mask=group < GROUP)
    tl.store(totals + place, total, mask=group < GROUP)


@triton.jit
def _attend_run(  # type: ignore[no-untyped-def]
    query, keys, values, last_slots, positions, stored, out, tops, totals,
    scale, window, num_splits, lane_stride, head_stride, stored_lane_stride, stored_head_stride,
    NUM_KV_HEADS: tl.constexpr, GROUP: tl.constexpr, HEAD_DIM: tl.constexpr,
    ROWS: tl.constexpr, DIMS: tl.constexpr, SLOTS: tl.constexpr,
    HAS_WINDOW: tl.constexpr,
):  # fmt: skip
    """One run of slots of one key/value head of one row."""
    row, split = tl.program_id(0).to(tl.int64), tl.program_id(1)
    lane, head = row // NUM_KV_HEADS, row % NUM_KV_HEADS
    length = tl.load(last_slots + lane) + 1
    run = tl.cdiv(tl.cdiv(length, num_splits), SLOTS) * SLOTS
    start = split * run
    stop = tl.minimum(start + run, length)

    q = load_query(query, row, GROUP, HEAD_DIM, ROWS, DIMS)
    top = tl.full([ROWS], -1e30, tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, DIMS], tl.float32)
    dim = tl.arange(0, DIMS)
    base = lane * lane_stride + head * head_stride
    stored += lane * stored_lane_stride + head * stored_head_stride
    for first in range(start, stop, SLOTS):
        slot = first + tl.arange(0, SLOTS)
        is_live = slot < stop
        offsets = base + slot[:, None] * HEAD_DIM + dim[None, :]
        is_stored = is_live[:, None] & (dim < HEAD_DIM)[None, :]
        if HAS_WINDOW:
            is_live = in_window(stored, slot, is_live, tl.load(positions + lane) - window)
        k = tl.load(keys + offsets, mask=is_stored, other=0.0)
        weights, shrink, top, total = weigh(q, k, is_live, scale, top, total)
        v = tl.load(values + offsets, mask=is_stored, other=0.0)
        acc = add_values(acc, shrink, weights, v)
    store_run(
        out, tops, totals, acc, top, total, row, split, num_splits, GROUP, HEAD_DIM, ROWS, DIMS
    )


@triton.jit
def _join_runs(  # type: ignore[no-untyped-def]
    partial, tops, totals, sinks, out, num_splits,
    NUM_KV_HEADS: tl.constexpr, GROUP: tl.constexpr, HEAD_DIM: tl.constexpr, DIMS: tl.constexpr,
    SPLITS: tl.constexpr, HAS_SINKS: tl.constexpr,
):  # fmt: skip
    """One query head of one row: the softmax over all its runs, and over its sink, which gives
    nothing."""
    row, g = tl.program_id(0).to(tl.int64), tl.program_id(1)
    split, dim = tl.arange(0, SPLITS), tl.arange(0, DIMS)
    place = (row * num_splits + split) * GROUP + g
    is_split = split < num_splits
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
    asked: DecodeQuery, keys: torch.Tensor, values: torch.Tensor, num_splits: int | None = None
) -> torch.Tensor:
    """`FusedDecode`. `num_splits` None: the best number for this GPU and these shapes."""
    query, *places, rule = asked
    batch, _, _, head_dim = query.shape
    num_kv_heads, num_slots = keys.shape[1:3]
    splits = num_splits or preferred_splits(batch * num_kv_heads, num_slots)
    runs = Runs(query.contiguous(), num_kv_heads, splits)
    _attend_run[(batch * num_kv_heads, splits)](
        runs.query, keys, values, *places, *runs.results,
        rule.scale, rule.sliding_window or 0, splits, keys.stride(0), keys.stride(1),
        *head_strides(asked.stored_positions), num_kv_heads, runs.group, head_dim, *runs.padded,
        BLOCK_SLOTS, rule.sliding_window is not None,
    )  # fmt: skip
    return runs.join(rule.sinks)


class Runs:
    """Runs of slots for `query` [R, Q, 1, D], contiguous: room for their results, and their
    join."""

    def __init__(self, query: torch.Tensor, num_kv_heads: int, num_splits: int) -> None:
        batch, num_heads, _, head_dim = query.shape
        self.query, self.group = query, num_heads // num_kv_heads
        self._num_kv_heads, self._num_splits = num_kv_heads, num_splits
        #: Output, largest logit and sum of weights of each query head in each run.
        self.results = tuple(
            torch.empty(batch * num_heads * num_splits * size, dtype=torch.float32,
                        device=query.device)
            for size in (head_dim, 1, 1)
        )  # fmt: skip

    @property
    def padded(self) -> tuple[int, int]:
        """Query heads and channels, padded as Triton's blocks need them."""
        rows = max(MIN_ROWS, triton.next_power_of_2(self.group))
        return rows, triton.next_power_of_2(self.query.shape[-1])

    def join(self, sinks: torch.Tensor | None) -> torch.Tensor:
        """The attention [R, Q, 1, D], with `sinks` [Q] if there are any."""
        out = torch.empty_like(self.query)
        splits, head_dim = self._num_splits, out.shape[-1]
        _join_runs[(len(out) * self._num_kv_heads, self.group)](
            *self.results, out if sinks is None else sinks, out, splits,
            self._num_kv_heads, self.group, head_dim, self.padded[1],
            triton.next_power_of_2(splits), sinks is not None,
        )  # fmt: skip
        return out


@cache
def preferred_splits(num_rows: int, num_slots: int) -> int:
    """The number of runs that keeps the GPU busy with so many rows. No run is shorter than
    a block."""
    num_sms = torch.cuda.get_device_properties().multi_processor_count
    wanted = -(-PROGRAMS_PER_SM * num_sms // num_rows)
    return max(1, min(wanted, -(-num_slots // BLOCK_SLOTS), MAX_SPLITS))
