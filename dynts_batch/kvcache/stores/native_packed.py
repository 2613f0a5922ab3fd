"""The packed store, with groups and buffers read and written in C: the same bits in fewer passes
than torch.

Axes as in kvcache/__init__.py.
"""

import ctypes

import torch

from dynts_batch.kvcache.native import function, operation
from dynts_batch.kvcache.stores.packed import PackedStore

SOURCE = "packed.c"
#: The code for keys and values of each type.
SOURCES = {torch.float32: SOURCE, torch.bfloat16: "packed_bf16.c"}


class CStore(ctypes.Structure):
    """`packed_store` of native/packed.h."""

    _fields_ = (
        *(
            (name, ctypes.c_void_p)
            for name in ("codes", "scales", "zero_points", "buffer", "is_ternary")
        ),
        *((name, ctypes.c_long) for name in ("num_lanes", "H", "N", "D", "bits", "marks_per_lane")),
    )

    @classmethod
    def of(
        cls,
        codes: torch.Tensor,
        scales: torch.Tensor,
        zero_points: torch.Tensor | None,
        buffer: torch.Tensor,
        is_ternary: torch.Tensor | None,
        bits: int,
    ) -> "CStore":
        _, num_lanes, num_heads, num_groups, head_dim = scales.shape
        return cls(
            *(codes.data_ptr(), scales.data_ptr()),
            None if zero_points is None else zero_points.data_ptr(),
            buffer.data_ptr(),
            None if is_ternary is None else is_ternary.data_ptr(),
            *(num_lanes, num_heads, num_groups, head_dim, bits),
            1 if is_ternary is None else is_ternary.shape[1],
        )


class NativePackedStore(PackedStore):
    """On a CPU, if `native.can_run` says so. `parts` are what `CStore` is built from."""

    @property
    def parts(
        self,
    ) -> tuple[
        torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor, torch.Tensor | None, int
    ]:
        return (
            *(self.codes, self.scales, self.zero_points, self.buffer, self.is_ternary),
            self.form.bits,
        )

    @property
    def _source(self) -> str:
        return SOURCES[self.buffer.dtype]

    def _append(
        self, lanes: torch.Tensor, slots: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
    ) -> None:
        _append_packed(*self.parts, lanes, slots, keys, values)

    def _read(self, part: int, lanes: torch.Tensor, num_slots: int) -> torch.Tensor:
        read, store = function(self._source, "read_packed", "pplpplll"), CStore.of(*self.parts)
        num_heads, head_dim = self.buffer.shape[2], self.buffer.shape[-1]
        out = self.buffer.new_empty(len(lanes), num_heads, num_slots, head_dim)
        read(
            out.data_ptr(), ctypes.addressof(store), part, lanes.data_ptr(),
            self.cache_len.data_ptr(), len(lanes), num_slots, torch.get_num_threads(),
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
        write, store = function(self._source, "write_packed", "pplpplll"), CStore.of(*self.parts)
        states = states.contiguous()
        write(
            ctypes.addressof(store), lanes.data_ptr(), first, lengths.data_ptr(), states.data_ptr(),
            len(lanes), states.shape[3], torch.get_num_threads(),
        )  # fmt: skip


@operation(
    "append_packed(Tensor(a!) codes, Tensor(b!) scales, Tensor(c!)? zero_points, Tensor(d!) buffer,"
    " Tensor(e!)? is_ternary, int bits, Tensor lanes, Tensor slots, Tensor keys, Tensor values) ->"
    " ()"
)
def _append_packed(
    codes: torch.Tensor,
    scales: torch.Tensor,
    zero_points: torch.Tensor | None,
    buffer: torch.Tensor,
    is_ternary: torch.Tensor | None,
    bits: int,
    lanes: torch.Tensor,
    slots: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
) -> None:
    assert keys.stride(-1) == values.stride(-1) == 1, "a head's numbers stand side by side"
    append, store = (
        function(SOURCES[buffer.dtype], "append_packed", "ppppplllll"),
        CStore.of(codes, scales, zero_points, buffer, is_ternary, bits),
    )
    append(
        ctypes.addressof(store), lanes.data_ptr(), slots.data_ptr(), keys.data_ptr(),
        values.data_ptr(), len(lanes), *keys.stride()[:2], *values.stride()[:2],
    )  # fmt: skip
