"""Rows of codes times weights in 8 bits: by C code for AVX-512 VNNI, or by oneDNN.

Both sum whole numbers, so they give the same bits. oneDNN is for processors with AMX, which do many
times as much at once, and for machines without a compiler. On others C is a fifth faster.
"""

import torch
from torch.nn import functional as F

from dynts_batch.engine.model.int8.rounding import ZERO_POINT, scale_rows
from dynts_batch.kvcache.native import VECTOR, can_run, function, operation

SOURCE = "int8_product.c"
#: Channels that the C code takes at once.
PANEL = 64


class NativeProduct:
    """By C code. `codes`: int8 [N, K], their `scales` and `bias`: float32 [N]."""

    def __init__(
        self, codes: torch.Tensor, scales: torch.Tensor, bias: torch.Tensor | None
    ) -> None:
        self._scales, self._bias = scales, bias
        padding = -len(codes) % PANEL
        # A token's codes are `ZERO_POINT` above their numbers.
        offsets = codes.sum(dim=1, dtype=torch.int32) * -ZERO_POINT
        self._offsets = F.pad(offsets, (0, padding))
        fours = F.pad(codes.view(torch.int32), (0, 0, 0, padding))
        self._weights = fours.unflatten(0, (-1, PANEL)).transpose(1, 2).contiguous()

    @staticmethod
    def fits(num_channels: int, width: int) -> bool:
        """Whether it can multiply `num_channels` x `width` weights here, and is the faster one."""
        has_amx = torch.cpu.get_capabilities().get("amx_int8", False)
        return (
            not has_amx
            and num_channels % VECTOR == 0
            and can_run(SOURCE, torch.float32, torch.device("cpu"), width)
        )

    def __call__(
        self, codes: torch.Tensor, scales: torch.Tensor, dtype: torch.dtype
    ) -> torch.Tensor:
        """Numbers [..., N] of `dtype`: float32 or bfloat16.

        `codes`: uint8 [..., K], `ZERO_POINT` added. `scales`: float32 [..., 1].
        """
        return _multiply_codes(
            codes, scales, self._weights, self._offsets, self._scales, self._bias, dtype
        )


class OneDnnProduct:
    """The same by oneDNN, for any N, K and `dtype`."""

    def __init__(
        self, codes: torch.Tensor, scales: torch.Tensor, bias: torch.Tensor | None
    ) -> None:
        self._scales, self._bias = scales, bias
        self._zero_points = torch.zeros(len(codes), dtype=torch.int32)
        self._weights = torch.ops.onednn.qlinear_prepack(codes, None)
        self._multiply = torch.ops.onednn.qlinear_pointwise.default

    def __call__(
        self, codes: torch.Tensor, scales: torch.Tensor, dtype: torch.dtype
    ) -> torch.Tensor:
        # Signed codes would take a reference loop, a thousand times as slow.
        sums = self._multiply(
            codes, 1.0, ZERO_POINT, self._weights, self._scales, self._zero_points, None, 1.0, 0,
            torch.float32, "none", [], "",
        )  # fmt: skip
        return scale_rows(sums, scales, self._bias, dtype)


@operation(
    "multiply_codes(Tensor codes, Tensor scales, Tensor weights, Tensor offsets, Tensor"
    " channel_scales, Tensor? bias, ScalarType dtype) -> Tensor"
)
def _multiply_codes(
    codes: torch.Tensor,
    scales: torch.Tensor,
    weights: torch.Tensor,
    offsets: torch.Tensor,
    channel_scales: torch.Tensor,
    bias: torch.Tensor | None,
    dtype: torch.dtype,
) -> torch.Tensor:
    codes, scales, num_channels = codes.contiguous(), scales.contiguous(), len(channel_scales)
    out = torch.empty(*codes.shape[:-1], num_channels, dtype=dtype)
    function(SOURCE, "multiply_codes", "ppppppp" "lllll")(
        out.data_ptr(), codes.data_ptr(), scales.data_ptr(), weights.data_ptr(), offsets.data_ptr(),
        channel_scales.data_ptr(), None if bias is None else bias.data_ptr(),
        len(scales.view(-1)), num_channels, codes.shape[-1], dtype == torch.bfloat16,
        torch.get_num_threads(),
    )  # fmt: skip
    return out
