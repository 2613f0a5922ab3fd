"""Number formats of stored keys and values: 16 numbers share an FP8 E4M3 scale, packed into bytes.

- `NVFP4`: sign and E2M1 magnitude, 0 .5 1 1.5 2 3 4 6; 4.5 bits per number, scale included.
- `TERNARY`: -1 0 1; 2.5 bits.
- `FP8`: E4M3, with the group's largest number at 16; 8.5 bits.
- `INT4`: 16 equal steps from the group's own zero-point (KIVI, arXiv 2402.02750); 5.5 bits. It is
  for keys. A bias can put a channel's numbers far from 0 and close together; this format keeps
  their differences.

Scale. It is the group's extent over `top`, where the format puts that extent; `top` is the format's
largest magnitude, except for FP8. The extent is the largest magnitude, and for INT4 the largest
number minus the smallest. The scale is rounded to E4M3, ties to even. Subnormal E4M3 numbers are
coarse, so there it is rounded up, lest the largest numbers be cut off. It is at most 448. Unless
the group is all zero, it is at least 2**-9, the smallest E4M3 number, so tiny numbers lose at most
half a step of that. FP8 uses 16, since at 448 the scales of most groups would be subnormal.

Codes. A number over its scale is computed in float32, clipped to the format's range, and rounded to
the nearest magnitude, ties to the even code. A zero has no sign. Quantising dequantised numbers
gives the same codes and scales again, except in FP8, and unless the scale is subnormal in E4M3.

INT4's zero-point is a whole number of eighths of a step. It puts the middle of the 16 steps at the
middle of the group. So the first and the last step are in use however the scale was rounded, and
rounding again changes nothing. That holds for groups at most 120 times their extent away from 0.
Beyond, a step is 2**-11 of the largest magnitude.

Knows nothing about who stores what, nor where groups begin.
"""

from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import torch

#: Numbers that share a scale.
GROUP = 16
SCALE_DTYPE = torch.float8_e4m3fn
LARGEST_SCALE = 448.0
#: The smallest E4M3 number; those below 2**-6 are subnormal and its multiples.
SMALLEST_SCALE, SMALLEST_NORMAL = 2.0**-9, 2.0**-6
#: The unit of INT4's zero-point, in steps, and the largest zero-point in that unit.
ZERO_POINT_UNIT, LAST_ZERO_POINT = 1 / 8, 32767
#: The smallest step of INT4, relative to the group's largest magnitude.
SMALLEST_STEP = 2.0**-11


@dataclass(frozen=True)
class Format:
    """`bits` of a code, and `magnitudes`: what the codes without sign stand for, ascending from 0.

    With a zero-point, no code has a sign. `top`: where a group's extent is put.
    """

    name: str
    bits: int
    magnitudes: tuple[float, ...]
    top: float
    has_zero_point: bool = False

    @property
    def codes_per_byte(self) -> int:
        return 8 // self.bits

    @property
    def bits_per_number(self) -> float:
        """Its share of the scale and the zero-point included."""
        return self.bits + (8 + 16 * self.has_zero_point) / GROUP

    @property
    def sign(self) -> int:
        """What is added to the code of a number below 0."""
        return 0 if self.has_zero_point else 1 << (self.bits - 1)


def _e4m3_magnitudes() -> tuple[float, ...]:
    codes = torch.arange(127, dtype=torch.uint8)  # the 128th is NaN
    return tuple(codes.view(SCALE_DTYPE).float().tolist())


NVFP4 = Format("nvfp4", 4, (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0), top=6.0)
TERNARY = Format("ternary", 2, (0.0, 1.0), top=1.0)
FP8 = Format("fp8", 8, _e4m3_magnitudes(), top=16.0)
INT4 = Format("int4", 4, tuple(map(float, range(16))), top=15.0, has_zero_point=True)


class KVFormat(NamedTuple):
    """How keys and values are stored. Their codes have the same number of bits."""

    keys: Format
    values: Format

    @property
    def bits(self) -> int:
        return self.keys.bits


#: By their names in `policy.quantize`.
KV_FORMATS = {
    "nvfp4": KVFormat(NVFP4, NVFP4),
    "int4": KVFormat(INT4, NVFP4),
    "fp8": KVFormat(FP8, FP8),
}


class Quantised(NamedTuple):
    """Groups [..., 16]: codes uint8 [..., 16], scales E4M3 [...], and zero-points int16 [...] if
    the format has them."""

    codes: torch.Tensor
    scales: torch.Tensor
    zero_points: torch.Tensor | None = None


def quantise(numbers: torch.Tensor, form: Format) -> Quantised:
    """Groups of finite `numbers` [..., 16]."""
    numbers = numbers.float()
    largest = numbers.abs().amax(-1)
    extent = largest
    if form.has_zero_point:
        low, high = numbers.aminmax(dim=-1)
        extent = torch.maximum(high - low, largest * (SMALLEST_STEP * form.top))
    # A tensor as divisor, because a GPU multiplies with a number's reciprocal, which rounds
    # otherwise.
    scales = extent / torch.full_like(extent, form.top)
    scales = scales.clamp(SMALLEST_SCALE, LARGEST_SCALE)
    up = (scales / SMALLEST_SCALE).ceil() * SMALLEST_SCALE
    scales = torch.where(scales < SMALLEST_NORMAL, up, scales)
    scales = scales.masked_fill(extent == 0, 0.0).to(SCALE_DTYPE)
    # If the scale is 0, all numbers are 0.
    divisors = scales.float().masked_fill(extent == 0, 1.0)
    steps, zero_points = numbers / divisors.unsqueeze(-1), None
    if form.has_zero_point:
        begin = (low + high) / 2 / divisors - form.top / 2
        zero_points = (begin / ZERO_POINT_UNIT).clamp(-LAST_ZERO_POINT, LAST_ZERO_POINT).round()
        zero_points = zero_points.masked_fill(extent == 0, 0.0)
        steps = (steps - (zero_points * ZERO_POINT_UNIT).unsqueeze(-1)).clamp(min=0)
        zero_points = zero_points.to(torch.int16)
    codes = torch.bucketize(steps.abs().contiguous(), _bounds(form, numbers.device), out_int32=True)
    codes += form.sign * ((numbers < 0) & (codes > 0))
    return Quantised(codes.to(torch.uint8), scales, zero_points)


def dequantise(groups: Quantised, form: Format) -> torch.Tensor:
    """float32 numbers [..., 16]."""
    numbers = _numbers(form, groups.codes.device)[groups.codes.int()]
    if groups.zero_points is not None:
        numbers = numbers + (groups.zero_points * ZERO_POINT_UNIT).unsqueeze(-1)
    return numbers * groups.scales.float().unsqueeze(-1)


def pack(codes: torch.Tensor, form: Format) -> torch.Tensor:
    """Codes [..., N] in bytes, uint8 [..., N * bits / 8]. A byte's first code has the
    lowest bits."""
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
    """The numbers [..., N] of packed codes, before zero-points and scales: one look-up per byte."""
    return _numbers_of_byte(form, packed.device)[packed.int()].flatten(-2)


@cache
def _bounds(form: Format, device: torch.device) -> torch.Tensor:
    """A number above bound c has a code above c. A middle between two magnitudes goes to the even
    code."""
    magnitudes = torch.tensor(form.magnitudes, dtype=torch.float32)
    middles = (magnitudes[1:] + magnitudes[:-1]) / 2
    below = torch.nextafter(middles, torch.zeros_like(middles))
    is_even = torch.arange(len(middles)) % 2 == 0
    return torch.where(is_even, middles, below).to(device)


@cache
def _numbers(form: Format, device: torch.device) -> torch.Tensor:
    """The number of each code; 0 for a code that `quantise` never gives."""
    numbers = torch.zeros(1 << form.bits)
    magnitudes = torch.tensor(form.magnitudes)
    numbers[: len(magnitudes)] = magnitudes
    if form.sign:
        numbers[form.sign + 1 : form.sign + len(magnitudes)] = -magnitudes[1:]
    return numbers.to(device)


@cache
def _numbers_of_byte(form: Format, device: torch.device) -> torch.Tensor:
    """[256, codes_per_byte]: the numbers that each byte packs."""
    every_byte = torch.arange(256, dtype=torch.int32).to(torch.uint8)
    return _numbers(form, torch.device("cpu"))[unpack(every_byte[:, None], form).int()].to(device)
