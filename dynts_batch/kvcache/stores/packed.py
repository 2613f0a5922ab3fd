"""Keys and values of one layer for all lanes, quantised in groups of 16 tokens.

Only kvcache/arena.py writes to them. Axes as in kvcache/__init__.py.
"""

from typing import NamedTuple, Self

import torch

from dynts_batch.kvcache.stores.formats import (
    GROUP,
    SCALE_DTYPE,
    TERNARY,
    ZERO_POINT_UNIT,
    Format,
    KVFormat,
    pack,
    quantise,
    unscaled,
)


class PackedStore:
    """Quantised: 16 consecutive slots of a lane are a group, packed once it is complete.

    Slots behind the last complete group, at most 15, are in a buffer of full precision. A key
    shares a scale with the same channel of the group's 16 tokens. A value shares one with 16
    neighbouring channels of its token. Groups have the formats of `form`. If all 16 tokens of a
    group may be stored more coarsely, an eviction makes the group ternary, in the first of its
    bytes. `num_marks`: how many heads tell such groups apart; 1: all have the same; 0: there are
    none.

    An eviction regroups: survivors are dequantised, moved together and packed again. So slots stay
    dense, and the bits per number stay the same. In NVFP4 values come out unchanged, and so do keys
    of groups that lose no token. In INT4 too, except for the rounding to the model's own precision.
    Other keys share scales with new neighbours and are rounded once more. In FP8, all that moves
    may be rounded once more.

    `cache_len` [max_seqs] is the arena's. It says where each lane's buffer begins.

    `key_offset` [H, D]: what is taken out of keys before they are stored, and added again to those
    that are read; None: nothing is. It is what all keys of a head have in common, such as a bias.
    A format without a zero-point would spend its precision on it. Decode attention reads `groups`
    and `buffer`, where the offset is missing. All logits of a query then differ by one number,
    which a softmax ignores, so it is right as it is. With sinks it would not be: a layer that has
    them must have no offset.
    """

    def __init__(
        self,
        size: tuple[int, int, int, int],
        dtype: torch.dtype,
        cache_len: torch.Tensor,
        *,
        form: KVFormat,
        num_marks: int,
        key_offset: torch.Tensor | None = None,
    ) -> None:
        max_seqs, num_heads, capacity, head_dim = size
        self.num_groups, self._dtype, self.cache_len = capacity // GROUP, dtype, cache_len
        self.form, self._key_offset = form, key_offset
        device, groups = cache_len.device, (2, max_seqs, num_heads, self.num_groups)
        num_bytes = GROUP * head_dim // form.keys.codes_per_byte
        # The first axis: keys, values.
        self.codes = torch.zeros((*groups, num_bytes), dtype=torch.uint8, device=device)
        self.scales = torch.zeros((*groups, head_dim), dtype=torch.uint8, device=device)
        #: For keys only.
        self.zero_points = (
            torch.zeros((*groups[1:], head_dim), dtype=torch.int16, device=device)
            if form.keys.has_zero_point
            else None
        )
        self.buffer = torch.zeros(
            (2, max_seqs, num_heads, GROUP, head_dim), dtype=dtype, device=device
        )
        marks = (max_seqs, num_marks, self.num_groups)
        self.is_ternary = torch.zeros(marks, dtype=torch.bool, device=device) if num_marks else None
        self._in_group = torch.arange(GROUP, device=device)

    def stored(self, num_lanes: int, num_slots: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Dequantised, as copies."""
        lanes = torch.arange(num_lanes, device=self.codes.device)
        return self.keys(lanes, num_slots), self.values(lanes, num_slots)

    def keys(self, lanes: torch.Tensor, num_slots: int) -> torch.Tensor:
        keys = self._read(0, lanes, num_slots)
        return keys if self._key_offset is None else keys + self._key_offset[:, None]

    def keys_in_place(self, lanes: torch.Tensor, num_slots: int) -> torch.Tensor:
        return self.keys(lanes, num_slots)

    def values(self, lanes: torch.Tensor, num_slots: int) -> torch.Tensor:
        return self._read(1, lanes, num_slots)

    def values_in_place(self, lanes: torch.Tensor, num_slots: int) -> torch.Tensor:
        return self.values(lanes, num_slots)

    def groups(self, part: int, lanes: slice | torch.Tensor, groups: slice) -> torch.Tensor:
        """Keys (`part` 0) without their offset, or values (1), of packed groups of `lanes`,
        dequantised, [R, H, S, D]."""
        codes, scales = (
            self.codes[part][lanes][:, :, groups],
            self.scales[part][lanes][:, :, groups],
        )
        numbers = unscaled(codes, self.form[part])
        if self.is_ternary is not None:
            few = codes[..., : codes.shape[-1] * TERNARY.bits // self.form.bits]
            is_ternary = self.is_ternary[lanes][:, :, groups, None]
            numbers = torch.where(is_ternary, unscaled(few, TERNARY), numbers)
        head_dim = scales.shape[-1]
        numbers = numbers.unflatten(-1, (GROUP, head_dim))
        factors = scales.view(SCALE_DTYPE).float()
        if part == 0:
            if self.zero_points is not None:
                zero_points = self.zero_points[lanes][:, :, groups]
                numbers = numbers + (zero_points * ZERO_POINT_UNIT).unsqueeze(-2)
            numbers = numbers * factors.unsqueeze(-2)
        else:
            numbers = numbers.unflatten(-1, (-1, GROUP))
            numbers = (numbers * factors.view(*numbers.shape[:-1], 1)).flatten(-2)
        return numbers.flatten(2, 3).to(self._dtype)

    def write(
        self,
        lanes: torch.Tensor,
        start: int,
        lengths: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
    ) -> None:
        """Tokens beyond `lengths` may fill groups. Nothing reads these before they are packed
        again."""
        assert start % GROUP == 0, "a chunk of a prompt ends where a group does"
        if self._key_offset is not None:
            keys = keys - self._key_offset[:, None]
        self._write(lanes, start // GROUP, lengths, torch.stack((keys, values)), None)

    def append(
        self, lanes: torch.Tensor, slots: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
    ) -> None:
        if self._key_offset is not None:
            keys = keys - self._key_offset
        self._append(lanes, slots, keys, values)

    def _append(
        self, lanes: torch.Tensor, slots: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
    ) -> None:
        """`append` of keys without their offset."""
        for buffer, states in zip(self.buffer, (keys, values), strict=True):
            buffer[lanes, :, slots % GROUP] = states
        complete = lanes[slots % GROUP == GROUP - 1]
        if len(complete):
            group = torch.div(slots[complete], GROUP, rounding_mode="floor")
            for part in range(2):
                packed = pack_groups(part, self.buffer[part][complete], self.form[part])
                self._store(part, complete, group, packed)
            if self.is_ternary is not None:
                self.is_ternary[complete, :, group] = False

    def evict(
        self,
        rows: torch.Tensor,
        kept: torch.Tensor,
        retained_len: torch.Tensor,
        is_coarse: torch.Tensor | None,
    ) -> None:
        num_slots = (self.num_groups + 1) * GROUP
        row = torch.arange(len(rows), device=rows.device)[:, None, None]
        head = torch.arange(self.codes.shape[2], device=rows.device)[:, None]
        survivors = [self._read(part, rows, num_slots)[row, head, kept] for part in range(2)]
        self._write(rows, 0, retained_len, torch.stack(survivors), is_coarse)

    def take(self, other: Self, source: int, target: int, cache_len: int) -> None:
        groups = slice(cache_len // GROUP)
        for own, given in ((self.codes, other.codes), (self.scales, other.scales)):
            own[:, target, :, groups] = given[:, source, :, groups]
        self.buffer[:, target] = other.buffer[:, source]
        if self.zero_points is not None and other.zero_points is not None:
            self.zero_points[target, :, groups] = other.zero_points[source, :, groups]
        if self.is_ternary is not None and other.is_ternary is not None:
            self.is_ternary[target, :, groups] = other.is_ternary[source, :, groups]

    def clear(self, lane: int) -> None:
        for tensor in (self.codes, self.scales, self.buffer):
            tensor[:, lane] = 0
        if self.zero_points is not None:
            self.zero_points[lane] = 0

    def _read(self, part: int, lanes: torch.Tensor, num_slots: int) -> torch.Tensor:
        """Keys (`part` 0) without their offset, or values (1), [R, H, S, D]."""
        num_groups = min(-(-num_slots // GROUP), self.num_groups)
        packed = self.groups(part, lanes, slice(num_groups))
        # Room for the buffer of a lane that has filled all its groups.
        room = packed.new_zeros(*packed.shape[:2], (self.num_groups + 1) * GROUP, packed.shape[-1])
        room[:, :, : packed.shape[2]] = packed
        begin = self.cache_len[lanes] // GROUP * GROUP
        rows = torch.arange(len(lanes), device=lanes.device)[:, None]
        room[rows, :, begin[:, None] + self._in_group] = self.buffer[part][lanes].transpose(1, 2)
        return room[:, :, :num_slots]

    def _write(
        self,
        lanes: torch.Tensor,
        first: int,
        lengths: torch.Tensor,
        states: torch.Tensor,
        is_coarse: torch.Tensor | None,
    ) -> None:
        """Pack the complete groups of keys and values `states` [2, R, H, T, D], from group `first`
        on.

        The rest stays in the buffers.
        """
        num_groups = states.shape[3] // GROUP
        is_ternary = None
        if is_coarse is not None:
            marks = is_coarse[..., : num_groups * GROUP].unflatten(-1, (num_groups, GROUP))
            is_ternary = marks.all(-1)
        if self.is_ternary is not None:
            groups = slice(first, first + num_groups)
            self.is_ternary[lanes, :, groups] = False if is_ternary is None else is_ternary
        self._pack(lanes, first, lengths, states, is_ternary)

    def _pack(
        self,
        lanes: torch.Tensor,
        first: int,
        lengths: torch.Tensor,
        states: torch.Tensor,
        is_ternary: torch.Tensor | None,
    ) -> None:
        """`_write` without marking the groups that are ternary, [R, H or 1, groups]."""
        longest = states.shape[3]
        num_groups = longest // GROUP
        groups = slice(first, first + num_groups)
        grouped = states[:, :, :, : num_groups * GROUP].unflatten(3, (num_groups, GROUP))
        for part in range(2):
            packed = pack_groups(part, grouped[part], self.form[part])
            if is_ternary is not None and is_ternary.any():
                packed = _where(is_ternary, pack_groups(part, grouped[part], TERNARY), packed)
            self._store(part, lanes, groups, packed)
        begin = lengths // GROUP * GROUP
        slots = (begin[:, None] + self._in_group).clamp(max=longest - 1)
        rows = torch.arange(len(lanes), device=lanes.device)[:, None]
        for part in range(2):
            self.buffer[part][lanes] = states[part][rows, :, slots].transpose(1, 2)

    def _store(
        self, part: int, lanes: torch.Tensor, group: slice | torch.Tensor, packed: "PackedGroups"
    ) -> None:
        self.codes[part][lanes, :, group] = packed.codes
        self.scales[part][lanes, :, group] = packed.scales
        if self.zero_points is not None and packed.zero_points is not None:
            self.zero_points[lanes, :, group] = packed.zero_points


class PackedGroups(NamedTuple):
    """Stored groups of keys or values: bytes [..., bytes], scales uint8 [..., D], and zero-points
    int16 [..., D] if the format has them."""

    codes: torch.Tensor
    scales: torch.Tensor
    zero_points: torch.Tensor | None


def pack_groups(part: int, numbers: torch.Tensor, form: Format) -> PackedGroups:
    """Groups of keys (`part` 0) or values (1), [..., 16, D]."""
    if part == 0:
        codes, scales, zero_points = quantise(numbers.transpose(-1, -2), form)
        codes = codes.transpose(-1, -2)
    else:
        codes, scales, zero_points = quantise(numbers.unflatten(-1, (-1, GROUP)), form)
        codes, scales = codes.flatten(-2), scales.flatten(-2)
    return PackedGroups(pack(codes.flatten(-2), form), scales.view(torch.uint8), zero_points)


def _where(is_ternary: torch.Tensor, coarse: PackedGroups, fine: PackedGroups) -> PackedGroups:
    """`coarse` groups if `is_ternary` [R, H or 1, groups], else `fine` ones. Coarse ones leave
    their last bytes unused."""
    unused = fine.codes.shape[-1] - coarse.codes.shape[-1]
    mark = is_ternary.unsqueeze(-1)
    return PackedGroups(
        torch.where(mark, torch.nn.functional.pad(coarse.codes, (0, unused)), fine.codes),
        torch.where(mark, coarse.scales, fine.scales),
        None,
    )
