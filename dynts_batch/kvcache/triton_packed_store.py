"""The packed store with its tokens appended by one Triton kernel: the same bits, and nothing is asked of the host.

Letters as in packed_store.py; R rows, one a lane that gets a token.
"""

import torch
import triton
import triton.language as tl

from dynts_batch.kvcache.packed_store import PackedStore
from dynts_batch.kvcache.stores import head_strides
from dynts_batch.kvcache.triton_formats import pack, quantise, quantise_from_zero_point, scale


@triton.jit
def _pack_group(  # type: ignore[no-untyped-def]
    numbers, codes, scales, zero_points,
    HEAD_DIM: tl.constexpr, DIMS: tl.constexpr, BITS: tl.constexpr,
    IS_KEYS: tl.constexpr, HAS_ZERO_POINT: tl.constexpr,
):  # fmt: skip
    """Pack float32 keys or values [16, DIMS] of one head to where its codes, scales and zero-points begin."""
    token, dim = tl.arange(0, 16), tl.arange(0, DIMS)
    if HAS_ZERO_POINT:
        quantised, own, begins = quantise_from_zero_point(numbers)
        tl.store(scales + dim, own, mask=dim < HEAD_DIM)
        tl.store(zero_points + dim, begins, mask=dim < HEAD_DIM)
    elif IS_KEYS:
        own = scale(tl.max(tl.abs(numbers), axis=0), BITS)
        tl.store(scales + dim, own, mask=dim < HEAD_DIM)
        quantised = quantise(numbers, tl.broadcast_to(own[None, :], [16, DIMS]), BITS)
    else:
        part = tl.arange(0, DIMS // 16)
        own = scale(tl.max(tl.abs(numbers.reshape(16, DIMS // 16, 16)), axis=2), BITS)
        at = token[:, None] * (HEAD_DIM // 16) + part[None, :]
        tl.store(scales + at, own, mask=(part < HEAD_DIM // 16)[None, :])
        each = tl.broadcast_to(own[:, :, None], [16, DIMS // 16, 16])
        quantised = quantise(numbers, each.reshape(16, DIMS), BITS)
    byte, num_bytes = tl.arange(0, DIMS * BITS // 8), HEAD_DIM * BITS // 8
    at = token[:, None] * num_bytes + byte[None, :]
    tl.store(codes + at, pack(quantised, BITS), mask=(byte < num_bytes)[None, :])


@triton.jit
def _append(  # type: ignore[no-untyped-def]
    states, lanes, slots, buffer, codes, scales, zero_points, ternary,
    lane_stride, head_stride, num_groups, ternary_lane_stride, ternary_head_stride,
    NUM_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, DIMS: tl.constexpr, BITS: tl.constexpr,
    IS_KEYS: tl.constexpr, HAS_ZERO_POINT: tl.constexpr, HAS_TERNARY: tl.constexpr,
):  # fmt: skip
    """Keys or values of one head of one new token, to the buffer; a group that they complete is packed."""
    row, head = tl.program_id(0).to(tl.int64) // NUM_HEADS, tl.program_id(0) % NUM_HEADS
    lane, slot = tl.load(lanes + row), tl.load(slots + row)
    place, of_lane = slot % 16, lane * NUM_HEADS + head
    token, dim = tl.arange(0, 16), tl.arange(0, DIMS)
    state = tl.load(
        states + row * lane_stride + head * head_stride + dim, mask=dim < HEAD_DIM, other=0.0
    )
    buffer += of_lane * 16 * HEAD_DIM
    tl.store(buffer + place * HEAD_DIM + dim, state, mask=dim < HEAD_DIM)
    if place == 15:
        is_older = (token < 15)[:, None] & (dim < HEAD_DIM)[None, :]
        older = tl.load(buffer + token[:, None] * HEAD_DIM + dim[None, :], mask=is_older, other=0.0)
        numbers = tl.where((token < 15)[:, None], older, state[None, :]).to(tl.float32)
        group = of_lane * num_groups + slot // 16
        _pack_group(
            numbers, codes + group * (2 * HEAD_DIM * BITS), scales + group * HEAD_DIM,
            zero_points + group * HEAD_DIM, HEAD_DIM, DIMS, BITS, IS_KEYS, HAS_ZERO_POINT,
        )  # fmt: skip
        if HAS_TERNARY:
            at = lane * ternary_lane_stride + head * ternary_head_stride + slot // 16
            tl.store(ternary + at, 0)


class TritonPackedStore(PackedStore):
    """For a GPU, where `devices.runs_triton` says so."""

    def append(
        self, lanes: torch.Tensor, slots: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
    ) -> None:
        num_heads, head_dim = self.buffer.shape[2], self.buffer.shape[-1]
        strides, marks = self.ternary_marks
        for part, states in enumerate((keys, values)):
            assert states.stride(-1) == 1, "a head's numbers stand side by side"
            form = self.form[part]
            _append[(len(lanes) * num_heads,)](
                states, lanes, slots, self.buffer[part], self.codes[part], self.scales[part],
                self.zero_points if form.has_zero_point else marks, marks, *states.stride()[:2],
                self.num_groups, *strides, num_heads, head_dim, triton.next_power_of_2(head_dim),
                form.bits, part == 0, form.has_zero_point, self.is_ternary is not None,
            )  # fmt: skip

    @property
    def ternary_marks(self) -> tuple[tuple[int, int], torch.Tensor]:
        """`is_ternary` as kernels take it: its strides, and itself; anything where there is none."""
        if self.is_ternary is None:
            return (0, 0), self.scales
        return head_strides(self.is_ternary), self.is_ternary.view(torch.uint8)
