"""Numbers to codes of 8 bits and back: the largest one of each row is 127 or -127.

It is done in C if there is a compiler.
"""

import torch

from dynts_batch.kvcache.native import can_run_both, function, operation

SOURCE = "rounding.c"
#: The largest code, and the unsigned code of 0.
TOP, ZERO_POINT = 127, 128


def rounded(numbers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """int8 codes [..., K] of `numbers`, and their float32 scales [..., 1]."""
    largest = numbers.abs().amax(dim=-1, keepdim=True).float()
    scales = largest.clamp_min(torch.finfo(torch.float32).tiny) / TOP
    return (numbers / scales).round_().to(torch.int8), scales


@operation("round_rows(Tensor numbers, int zero_point) -> (Tensor, Tensor)")
def round_rows(numbers: torch.Tensor, zero_point: int) -> tuple[torch.Tensor, torch.Tensor]:
    """`rounded` with `zero_point` added to the codes, uint8 [..., K]: 0 or `ZERO_POINT`."""
    codes = torch.empty(numbers.shape, dtype=torch.uint8)
    scales = torch.empty(*numbers.shape[:-1], 1)
    round_into(codes, scales, numbers, zero_point)
    return codes, scales


def round_into(
    codes: torch.Tensor, scales: torch.Tensor, numbers: torch.Tensor, zero_point: int
) -> None:
    """`round_rows` into contiguous tensors that are there."""
    numbers = numbers.contiguous()
    if not can_run_both(SOURCE, numbers.dtype, numbers.device):
        signed, scales[:] = rounded(numbers)
        torch.bitwise_xor(signed.view(torch.uint8), zero_point, out=codes)
        return
    function(SOURCE, "round_rows", "ppp" "lllll")(
        codes.data_ptr(), scales.data_ptr(), numbers.data_ptr(), len(scales.view(-1)),
        numbers.shape[-1], zero_point, numbers.dtype == torch.bfloat16, torch.get_num_threads(),
    )  # fmt: skip


@operation("scale_rows(Tensor sums, Tensor scales, Tensor? bias, ScalarType dtype) -> Tensor")
def scale_rows(
    sums: torch.Tensor, scales: torch.Tensor, bias: torch.Tensor | None, dtype: torch.dtype
) -> torch.Tensor:
    """float32 `sums` [..., N] times `scales` [..., 1], plus `bias` [N], as numbers of `dtype`."""
    out = torch.empty_like(sums, dtype=dtype)
    if not can_run_both(SOURCE, dtype, out.device, out.shape[-1]):
        scaled = sums * scales
        return (scaled if bias is None else scaled + bias).to(dtype)
    function(SOURCE, "scale_rows", "pppp" "llll")(
        out.data_ptr(), sums.data_ptr(), scales.data_ptr(),
        None if bias is None else bias.data_ptr(),
        len(scales.view(-1)), sums.shape[-1], dtype == torch.bfloat16, torch.get_num_threads(),
    )  # fmt: skip
    return out
