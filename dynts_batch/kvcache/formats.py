"""Number formats of stored keys and values: groups of 16 numbers that share an FP8 E4M3 scale, packed into bytes.

- `NVFP4`: sign and E2M1 magnitude, 0 .5 1 1.5 2 3 4 6; 4.5 bits a number with its share of the scale.
- `TERNARY`: -1 0 1; 2.5 bits.
- `FP8`: E4M3, up to 448; 8.5 bits.

Rules, the same for all: the scale is the group's largest magnitude over the format's largest, rounded to E4M3 (ties to
even), at most 448 and, unless the group is all zero, at least the smallest E4M3 number 2**-9, so that tiny numbers lose no
more than half a step of that. A number over its scale is computed in float32, held within the format's range and rounded
to the nearest of its magnitudes, ties to the even code; a zero has no sign. In NVFP4 and ternary, quantising what was
dequantised gives the same codes and scales again, as long as the scale is none of E4M3's subnormal numbers.

Knows nothing about who stores what, nor where groups begin.
"""

from dataclasses import dataclass
from functools import cache

import torch

#: Numbers that share a scale.
GROUP = 16
SCALE_DTYPE = torch.float8_e4m3fn
LARGEST_SCALE = 448.0
SMALLEST_SCALE = 2.0**-9


@dataclass(frozen=True)
class Format:
    """`bits` a code; `magnitudes`: what the codes without sign stand for, ascending from 0."""

    name: str
    bits: int
    magnitudes: tuple[float, ...]

    @property
    def codes_per_byte(self) -> int:
        return 8 // self.bits

    @property
    def bits_per_number(self) -> float:
        """With the number's share of the scale."""
        return self.bits + 8 / GROUP

    @property
    def sign(self) -> int:
        """What a code has more where its number is below 0."""
        return 1 << (self.bits - 1)


def _e4m3_magnitudes() -> tuple[float, ...]:
    codes = torch.arange(127, dtype=torch.uint8)  # the 128th stands for NaN
    return tuple(codes.view(SCALE_DTYPE).float().tolist())


NVFP4 = Format("nvfp4", 4, (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0))
TERNARY = Format("ternary", 2, (0.0, 1.0))
FP8 = Format("fp8", 8, _e4m3_magnitudes())


def quantise(numbers: torch.Tensor, form: Format) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes uint8 [..., 16] and scales E4M3 [...] of groups of finite `numbers` [..., 16]."""
    numbers = numbers.float()
    magnitudes = numbers.abs()
    largest = magnitudes.amax(-1)
    # By a tensor: by a number, a GPU multiplies with its reciprocal, which rounds otherwise.
    scales = largest / torch.full_like(largest, form.magnitudes[-1])
    scales = scales.clamp(SMALLEST_SCALE, LARGEST_SCALE)
    scales = scales.masked_fill(largest == 0, 0.0).to(SCALE_DTYPE)
    # Where the scale is 0, all numbers are.
    steps = magnitudes / scales.float().masked_fill(largest == 0, 1.0).unsqueeze(-1)
    codes = torch.bucketize(steps.contiguous(), _bounds(form, numbers.device), out_int32=True)
    codes += form.sign * ((numbers < 0) & (codes > 0))
    return codes.to(torch.uint8), scales


def dequantise(codes: torch.Tensor, scales: torch.Tensor, form: Format) -> torch.Tensor:
    """float32 numbers [..., 16] of codes [..., 16] and scales [...]."""
    return _numbers(form, codes.device)[codes.int()] * scales.float().unsqueeze(-1)


def pack(codes: torch.Tensor, form: Format) -> torch.Tensor:
    """Codes [..., N] in bytes, uint8 [..., N * bits / 8]; the first code of a byte has the lowest bits."""
    parts = codes.unflatten(-1, (-1, form.codes_per_byte)).unbind(-1)
    packed = parts[0].clone()
    for place, part in enumerate(parts[1:], start=1):
        packed |= part << (place * form.bits)
    return packed


def unpack(packed: torch.Tensor, form: Format) -> torch.Tensor:
    """Codes [..., N] from their bytes [..., N * bits / 8]."""
    shifts = torch.arange(0, 8, form.bits, dtype=torch.uint8, device=packed.device)
    return ((packed.unsqueeze(-1) >> shifts) & ((1 << form.bits) - 1)).flatten(-2)


def unscaled(packed: torch.Tensor, form: Format) -> torch.Tensor:
    """The numbers [..., N] that packed codes stand for, before their scales: one look-up a byte."""
    return _numbers_of_byte(form, packed.device)[packed.int()].flatten(-2)


@cache
def _bounds(form: Format, device: torch.device) -> torch.Tensor:
    """Above bound c, a number belongs to a code above c: the middle between two magnitudes belongs to the even code."""
    magnitudes = torch.tensor(form.magnitudes, dtype=torch.float32)
    middles = (magnitudes[1:] + magnitudes[:-1]) / 2
    below = torch.nextafter(middles, torch.zeros_like(middles))
    is_even = torch.arange(len(middles)) % 2 == 0
    return torch.where(is_even, middles, below).to(device)


@cache
def _numbers(form: Format, device: torch.device) -> torch.Tensor:
    """What each code stands for; one that `quantise` never gives stands for 0."""
    numbers = torch.zeros(1 << form.bits)
    magnitudes = torch.tensor(form.magnitudes)
    numbers[: len(magnitudes)] = magnitudes
    numbers[form.sign + 1 : form.sign + len(magnitudes)] = -magnitudes[1:]
    return numbers.to(device)


@cache
def _numbers_of_byte(form: Format, device: torch.device) -> torch.Tensor:
    """[256, codes_per_byte]: the numbers that each byte packs."""
    every_byte = torch.arange(256, dtype=torch.int32).to(torch.uint8)
    return _numbers(form, torch.device("cpu"))[unpack(every_byte[:, None], form).int()].to(device)
