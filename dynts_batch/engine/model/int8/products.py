"""Rows of numbers, rounded, times weights in 8 bits: by C code for AVX-512 VNNI or AVX2, or
by oneDNN.

Both sum whole numbers, so they give the same bits. oneDNN is for processors with AMX, which do many
times as much at once, and for machines with AVX-512 VNNI and no compiler. On others with AVX-512
VNNI, C is faster by a fifth or more. With AVX2 alone oneDNN adds pairs of products in 16 bits,
which overflow.
"""

from functools import cache

import torch
from torch.nn import functional as F

from dynts_batch.engine.model.int8.rounding import TOP, ZERO_POINT, round_rows, scale_rows
from dynts_batch.errors import ConfigError
from dynts_batch.kvcache.native import can_run, function, operation

SOURCE = "int8_product.c"


class NativeProduct:
    """By C code. `codes`: int8 [N, K], their `scales` and `bias`: float32 [N]."""

    def __init__(
        self, codes: torch.Tensor, scales: torch.Tensor, bias: torch.Tensor | None
    ) -> None:
        layout = torch.empty(2, dtype=torch.int64)
        function(SOURCE, "layout", "p")(layout.data_ptr())
        panel, takes_signed = layout.tolist()
        self._num_channels = len(codes)
        padding = -len(codes) % panel
        self._scales = F.pad(scales, (0, padding))
        self._bias = None if bias is None else F.pad(bias, (0, padding))
        self._offsets = None
        if not takes_signed:
            # A token's codes are `ZERO_POINT` above their numbers.
            offsets = codes.sum(dim=1, dtype=torch.int32) * -ZERO_POINT
            self._offsets = F.pad(offsets, (0, padding))
        fours = codes.view(torch.int32)
        if padding:
            fours = F.pad(fours, (0, 0, 0, padding))
        self._weights = fours.unflatten(0, (-1, panel)).transpose(1, 2).contiguous()

    def __call__(self, numbers: torch.Tensor) -> torch.Tensor:
        """Numbers [..., K], float32 or bfloat16 -> [..., N] of their type."""
        weights = (self._weights, self._offsets, self._scales, self._bias)
        return _multiply_rounded(numbers, *weights, self._num_channels)


class OneDnnProduct:
    """The same by oneDNN, for any N, K and type."""

    def __init__(
        self, codes: torch.Tensor, scales: torch.Tensor, bias: torch.Tensor | None
    ) -> None:
        self._scales, self._bias = scales, bias
        self._zero_points = torch.zeros(len(codes), dtype=torch.int32)
        self._weights = torch.ops.onednn.qlinear_prepack(codes, None)
        self._multiply = torch.ops.onednn.qlinear_pointwise.default

    def __call__(self, numbers: torch.Tensor) -> torch.Tensor:
        codes, scales = round_rows(numbers, ZERO_POINT)
        return self.of_codes(codes, scales, numbers.dtype)

    def of_codes(
        self, codes: torch.Tensor, scales: torch.Tensor, dtype: torch.dtype
    ) -> torch.Tensor:
        """The same of uint8 `codes` [..., K] and their `scales`, float32 [..., 1]."""
        # Signed codes would take a reference loop, a thousand times as slow.
        sums = self._multiply(
            codes, 1.0, ZERO_POINT, self._weights, self._scales, self._zero_points, None, 1.0, 0,
            torch.float32, "none", [], "",
        )  # fmt: skip
        return scale_rows(sums, scales, self._bias, dtype)


@cache
def onednn_is_exact() -> bool:
    """Whether the largest codes do not overflow. ONEDNN_MAX_CPU_ISA may forbid it VNNI."""
    if not hasattr(torch.ops.onednn, "qlinear_prepack"):
        return False
    weights, codes = torch.full((1, 64), TOP, dtype=torch.int8), torch.full((1, 64), 255)
    product = OneDnnProduct(weights, torch.ones(1), None)
    sums = product.of_codes(codes.to(torch.uint8), torch.ones(1, 1), torch.float32)
    return sums.item() == 64 * TOP * (255 - ZERO_POINT)


def product_kind(width: int) -> type[NativeProduct | OneDnnProduct]:
    """What multiplies rows of `width` codes here.

    Raises: ConfigError if nothing does.
    """
    has = torch.cpu.get_capabilities().get
    is_onednn_exact = has("avx512_vnni", False) and onednn_is_exact()
    if has("amx_int8", False) and is_onednn_exact:
        return OneDnnProduct
    found = "a CPU without either"
    if has("avx2", False):
        found = f"products of width {width}"
        if width % 4 == 0:
            if can_run(SOURCE, torch.float32, torch.device("cpu")):
                return NativeProduct
            found = "AVX2 and no C compiler"
    if is_onednn_exact:
        return OneDnnProduct
    raise ConfigError(
        "model.weights=int8 needs a CPU with AVX-512 VNNI, or with AVX2, a C compiler and widths"
        f" that are multiples of 4, got {found}"
    )


@operation(
    "multiply_rounded(Tensor numbers, Tensor weights, Tensor? offsets, Tensor channel_scales,"
    " Tensor? bias, int num_channels) -> Tensor"
)
def _multiply_rounded(
    numbers: torch.Tensor,
    weights: torch.Tensor,
    offsets: torch.Tensor | None,
    channel_scales: torch.Tensor,
    bias: torch.Tensor | None,
    num_channels: int,
) -> torch.Tensor:
    numbers = numbers.contiguous()
    out, width = numbers.new_empty(*numbers.shape[:-1], num_channels), numbers.shape[-1]
    num_rows = numbers.numel() // width
    scratch = torch.empty(num_rows * (width + 4), dtype=torch.uint8)
    function(SOURCE, "multiply_rows", "ppppppp" "lllll")(
        out.data_ptr(), scratch.data_ptr(), numbers.data_ptr(), weights.data_ptr(),
        None if offsets is None else offsets.data_ptr(), channel_scales.data_ptr(),
        None if bias is None else bias.data_ptr(),
        num_rows, num_channels, width, out.dtype == torch.bfloat16, torch.get_num_threads(),
    )  # fmt: skip
    return out
