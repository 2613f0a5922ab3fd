"""The packed store, with groups and buffers read and written by Triton's kernels.

The bits are the same, and nothing waits for the host. A kernel has a program for each head of each
row, and some for 16 or more of its slots.
"""

import torch
import triton
import triton.language as tl

from dynts_batch.kvcache.stores.formats import GROUP
from dynts_batch.kvcache.stores.packed import PackedStore
from dynts_batch.kvcache.stores.plain import head_strides
from dynts_batch.kvcache.stores.triton_formats import (
    factors,
    from_zero_points,
    pack,
    quantise,
    quantise_from_zero_point,
    scale,
    unit,
    unpack,
)

#: Slots that a program reads.
BLOCK_SLOTS = 32


@triton.jit
def _load_codes(  # type: ignore[no-untyped-def]
    codes, slot, is_read,
    HEAD_DIM: tl.constexpr, DIMS: tl.constexpr, BITS: tl.constexpr, ROOM: tl.constexpr,
    HAS_ZERO_POINT: tl.constexpr,
):  # fmt: skip
    """Bits of numbers before their scales, int32 [SLOTS, DIMS], BITS each, of the slots with
    `is_read`.

    Their groups have room for ROOM bits a number.
    """
    words: tl.constexpr = HEAD_DIM * BITS // 32
    word = tl.arange(0, DIMS * BITS // 32)
    begin = slot // 16 * (HEAD_DIM * ROOM // 2) + slot % 16 * words
    is_word = is_read[:, None] & (word < words)[None, :]
    packed = tl.load(codes + begin[:, None] + word[None, :], mask=is_word, other=0)
    return unpack(packed, BITS, HAS_ZERO_POINT)


@triton.jit
def load_numbers(  # type: ignore[no-untyped-def]
    codes, slot, is_live, is_ternary,
    HEAD_DIM: tl.constexpr, DIMS: tl.constexpr, BITS: tl.constexpr,
    HAS_ZERO_POINT: tl.constexpr, HAS_TERNARY: tl.constexpr,
):  # fmt: skip
    """Numbers before zero-points and scales, float32 [SLOTS, DIMS]. Ternary numbers have the unit
    of 4-bit ones."""
    tl.static_assert(not HAS_TERNARY or BITS == 4)
    is_fine = is_live & ~is_ternary if HAS_TERNARY else is_live
    bits = _load_codes(codes, slot, is_fine, HEAD_DIM, DIMS, BITS, BITS, HAS_ZERO_POINT)
    if HAS_TERNARY:
        coarse = _load_codes(codes, slot, is_live & is_ternary, HEAD_DIM, DIMS, 2, BITS, False)
        bits = tl.where(is_ternary[:, None], coarse, bits)
    return bits.to(tl.float32, bitcast=True)


@triton.jit
def _pack_group(  # type: ignore[no-untyped-def]
    numbers, codes, scales, zero_points,
    HEAD_DIM: tl.constexpr, DIMS: tl.constexpr, BITS: tl.constexpr,
    IS_KEYS: tl.constexpr, HAS_ZERO_POINT: tl.constexpr,
):  # fmt: skip
    """Pack float32 keys or values [16, DIMS] of one head.

    `codes`, `scales` and `zero_points` point to the group's first of each.
    """
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
def _read_slots(  # type: ignore[no-untyped-def]
    out, lanes, slots, cache_len, codes, scales, zero_points, buffer, ternary,
    num_slots, slot_row_stride, slot_head_stride, num_groups,
    ternary_lane_stride, ternary_head_stride,
    NUM_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, DIMS: tl.constexpr, SLOTS: tl.constexpr,
    BITS: tl.constexpr, IS_KEYS: tl.constexpr, HAS_ZERO_POINT: tl.constexpr,
    HAS_TERNARY: tl.constexpr,
):  # fmt: skip
    """Read a block of `slots` of one head of one row, dequantised or from the buffer."""
    of_row, dim = tl.program_id(0).to(tl.int64), tl.arange(0, DIMS)
    row, head = of_row // NUM_HEADS, of_row % NUM_HEADS
    lane = tl.load(lanes + row)
    begin = tl.load(cache_len + lane) // 16 * 16  # of the buffer
    place = tl.program_id(1) * SLOTS + tl.arange(0, SLOTS)
    is_read = place < num_slots
    slot = tl.load(
        slots + row * slot_row_stride + head * slot_head_stride + place, mask=is_read, other=0
    )
    is_packed, of_lane = is_read & (slot < begin), lane * NUM_HEADS + head
    is_ternary = is_packed
    if HAS_TERNARY:
        marks = ternary + lane * ternary_lane_stride + head * ternary_head_stride
        is_ternary = tl.load(marks + slot // 16, mask=is_packed, other=0) != 0
    group = of_lane * num_groups  # the head's first
    numbers = load_numbers(
        codes + group * (HEAD_DIM * BITS // 2), slot, is_packed, is_ternary,
        HEAD_DIM, DIMS, BITS, HAS_ZERO_POINT, HAS_TERNARY,
    )  # fmt: skip
    at = group * HEAD_DIM + slot // 16 * HEAD_DIM
    if IS_KEYS:
        at = at[:, None] + dim[None, :]
    else:
        at = (at + slot % 16 * (HEAD_DIM // 16))[:, None] + (dim // 16)[None, :]
    is_number = is_packed[:, None] & (dim < HEAD_DIM)[None, :]
    if HAS_ZERO_POINT:
        numbers += from_zero_points(tl.load(zero_points + at, mask=is_number, other=0))
    own = factors(tl.load(scales + at, mask=is_number, other=0), HAS_ZERO_POINT)
    numbers = numbers * own * unit(BITS, HAS_ZERO_POINT)
    recent = buffer + (of_lane * 16 + slot % 16)[:, None] * HEAD_DIM + dim[None, :]
    is_recent = (is_read & (slot >= begin))[:, None] & (dim < HEAD_DIM)[None, :]
    found = tl.where(
        is_packed[:, None],
        numbers.to(out.dtype.element_ty),
        tl.load(recent, mask=is_recent, other=0.0),
    )
    target = out + (of_row * num_slots + place)[:, None] * HEAD_DIM + dim[None, :]
    tl.store(target, found, mask=is_read[:, None] & (dim < HEAD_DIM)[None, :])


@triton.jit
def _write_group(  # type: ignore[no-untyped-def]
    states, lanes, lengths, buffer, codes, scales, zero_points, ternary,
    num_tokens, first, num_groups, ternary_lane_stride, ternary_head_stride,
    NUM_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, DIMS: tl.constexpr, BITS: tl.constexpr,
    IS_KEYS: tl.constexpr, HAS_ZERO_POINT: tl.constexpr, HAS_TERNARY: tl.constexpr,
):  # fmt: skip
    """Store 16 tokens' keys or values of one head of one row: packed, or in the buffer if they are
    fewer."""
    of_row, own_group = tl.program_id(0).to(tl.int64), tl.program_id(1)
    row, head = of_row // NUM_HEADS, of_row % NUM_HEADS
    lane, length = tl.load(lanes + row), tl.load(lengths + row)
    token, dim = own_group * 16 + tl.arange(0, 16), tl.arange(0, DIMS)
    is_stored = (token < length)[:, None] & (dim < HEAD_DIM)[None, :]
    source = states + (of_row * num_tokens + token)[:, None] * HEAD_DIM + dim[None, :]
    numbers, of_lane = tl.load(source, mask=is_stored, other=0.0), lane * NUM_HEADS + head
    if own_group * 16 + 16 <= length:
        wide, group = numbers.to(tl.float32), of_lane * num_groups + first + own_group
        codes += group * (2 * HEAD_DIM * BITS)
        scales += group * HEAD_DIM
        zero_points += group * HEAD_DIM
        is_coarse = False
        if HAS_TERNARY:
            marks = ternary + lane * ternary_lane_stride + head * ternary_head_stride
            is_coarse = tl.load(marks + first + own_group) != 0
        if is_coarse:
            _pack_group(
                wide, codes, scales, zero_points, HEAD_DIM, DIMS, 2, IS_KEYS, HAS_ZERO_POINT
            )
            # The last half of the room for four bits is unused.
            rest = 4 * HEAD_DIM + tl.arange(0, 16)[:, None] * (HEAD_DIM // 4) + dim[None, :]
            tl.store(codes + rest, 0, mask=(dim < HEAD_DIM // 4)[None, :])
        else:
            _pack_group(
                wide, codes, scales, zero_points, HEAD_DIM, DIMS, BITS, IS_KEYS, HAS_ZERO_POINT
            )
    else:
        target = buffer + (of_lane * 16 + tl.arange(0, 16))[:, None] * HEAD_DIM + dim[None, :]
        tl.store(target, numbers, mask=is_stored)


@triton.jit
def _append_token(  # type: ignore[no-untyped-def]
    states, lanes, slots, buffer, codes, scales, zero_points, ternary,
    lane_stride, head_stride, num_groups, ternary_lane_stride, ternary_head_stride,
    NUM_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, DIMS: tl.constexpr, BITS: tl.constexpr,
    IS_KEYS: tl.constexpr, HAS_ZERO_POINT: tl.constexpr, HAS_TERNARY: tl.constexpr,
):  # fmt: skip
    """Store one head of one new token in the buffer. If that completes a group, pack it."""
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
    """For a GPU, if `devices.runs_triton` says so."""

    def _append(
        self, lanes: torch.Tensor, slots: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
    ) -> None:
        strides, marks = self.ternary_marks
        for part, states in enumerate((keys, values)):
            assert states.stride(-1) == 1, "a head's numbers stand side by side"
            _append_token[(len(lanes) * self.num_heads,)](
                states, lanes, slots, self.buffer[part], self.codes[part], self.scales[part],
                self._zero_points, marks, *states.stride()[:2], self.num_groups, *strides,
                *self._sizes, *self._kind(part),
            )  # fmt: skip

    def evict(
        self,
        rows: torch.Tensor,
        kept: torch.Tensor,
        retained_len: torch.Tensor,
        is_coarse: torch.Tensor | None,
    ) -> None:
        survivors = torch.stack([self._gather(part, rows, kept) for part in range(2)])
        self._write(rows, 0, retained_len, survivors, is_coarse)

    @property
    def ternary_marks(self) -> tuple[tuple[int, int], torch.Tensor]:
        """The strides of `is_ternary`, and itself, as kernels take it; any tensor if there
        is none."""
        if self.is_ternary is None:
            return (0, 0), self.scales
        return head_strides(self.is_ternary), self.is_ternary.view(torch.uint8)

    @property
    def num_heads(self) -> int:
        return self.buffer.shape[2]

    @property
    def _zero_points(self) -> torch.Tensor:
        """The zero-points; any tensor if there are none."""
        return self.scales if self.zero_points is None else self.zero_points

    @property
    def _sizes(self) -> tuple[int, int, int]:
        head_dim = self.buffer.shape[-1]
        return self.num_heads, head_dim, triton.next_power_of_2(head_dim)

    def _kind(self, part: int) -> tuple[int, bool, bool, bool]:
        form = self.form[part]
        return form.bits, part == 0, form.has_zero_point, self.is_ternary is not None

    def _read(self, part: int, lanes: torch.Tensor, num_slots: int) -> torch.Tensor:
        slots = torch.arange(num_slots, device=lanes.device)
        return self._gather(part, lanes, slots.expand(len(lanes), 1, -1))

    def _gather(self, part: int, lanes: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
        """Keys or values of `slots` [R, H or 1, K] of `lanes` [R], [R, H, K, D]."""
        num_rows, _, num_slots = slots.shape
        assert slots.stride(-1) == 1 or num_slots == 1, "a head's slots stand side by side"
        out = self.buffer.new_empty(num_rows, self.num_heads, num_slots, self.buffer.shape[-1])
        (strides, marks), kind = self.ternary_marks, self._kind(part)
        _read_slots[(num_rows * self.num_heads, triton.cdiv(num_slots, BLOCK_SLOTS))](
            out, lanes, slots, self.cache_len, self.codes[part].view(torch.int32),
            self.scales[part], self._zero_points, self.buffer[part], marks, num_slots,
            *head_strides(slots), self.num_groups, *strides, *self._sizes, BLOCK_SLOTS, *kind,
        )  # fmt: skip
        return out

    def _pack(
        self,
        lanes: torch.Tensor,
        first: int,
        lengths: torch.Tensor,
        states: torch.Tensor,
        is_ternary: torch.Tensor | None,
    ) -> None:
        num_tokens, (strides, marks) = states.shape[3], self.ternary_marks
        for part in range(2):
            _write_group[(len(lanes) * self.num_heads, triton.cdiv(num_tokens, GROUP))](
                states[part].contiguous(), lanes, lengths, self.buffer[part], self.codes[part],
                self.scales[part], self._zero_points, marks, num_tokens, first, self.num_groups,
                *strides, *self._sizes, *self._kind(part),
            )  # fmt: skip
