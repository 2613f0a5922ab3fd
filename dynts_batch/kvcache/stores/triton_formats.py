"""The formats of kvcache/stores/formats.py inside Triton's kernels: the same bits, by integer
arithmetic that every GPU has.

A code becomes a float32 by moving its bits. The sign goes to the sign; the rest goes to the low end
of the exponent and the high end of the mantissa. The smallest codes become float32's subnormal
numbers. The result is the code's number, except for a power of two. Most of that power comes back
with the scale; `unit` is left, for the sums. All of these products are exact, in bfloat16 and
float16 too.

In formats with a zero-point, a code's bits are the low ones of a number from 2**20 on, which has
steps of 1/8. The zero-point subtracts the 2**20 again.
"""

import triton
import triton.language as tl


@triton.jit
def unit(BITS: tl.constexpr, HAS_ZERO_POINT: tl.constexpr):  # type: ignore[no-untyped-def]
    """The factor that numbers times `factors` still lack. With it, the scales would leave float32's
    range."""
    return 1.0 if HAS_ZERO_POINT else 4.0 if BITS == 8 else 256.0


@triton.jit
def _bits(codes, BITS: tl.constexpr, HAS_ZERO_POINT: tl.constexpr):  # type: ignore[no-untyped-def]
    """Bits of float32 numbers, from codes in the highest bits of int32; lower bits don't matter."""
    if HAS_ZERO_POINT:
        bits = ((codes >> 25) & 0x78) | 0x49800000
    elif BITS == 8:
        bits = (codes >> 4) & -0x78100000
    elif BITS == 4:
        bits = (codes >> 6) & -0x7E400000
    else:
        bits = (codes >> 7) & -0x7F800000
    return bits


@triton.jit
def _every(  # type: ignore[no-untyped-def]
    words,
    SHIFT: tl.constexpr,
    STEP: tl.constexpr,
    BITS: tl.constexpr,
    HAS_ZERO_POINT: tl.constexpr,
):
    """Of each word, the codes that shifts by SHIFT, SHIFT - STEP, ... bring to the top, side by
    side."""
    if STEP == 32:
        bits = _bits(words << SHIFT, BITS, HAS_ZERO_POINT)
    else:
        even = _every(words, SHIFT, STEP * 2, BITS, HAS_ZERO_POINT)
        odd = _every(words, SHIFT - STEP, STEP * 2, BITS, HAS_ZERO_POINT)
        bits = tl.interleave(even, odd)
    return bits


@triton.jit
def unpack(words, BITS: tl.constexpr, HAS_ZERO_POINT: tl.constexpr):  # type: ignore[no-untyped-def]
    """Bits of numbers before zero-points and scales, int32 [R, N * 32 // BITS], from packed codes,
    int32 [R, N]."""
    return _every(words, 32 - BITS, BITS, BITS, HAS_ZERO_POINT)


@triton.jit
def from_zero_points(zero_points):  # type: ignore[no-untyped-def]
    """What to add to the numbers of `unpack`, float32. int16 zero-points are in eighths."""
    return zero_points.to(tl.float32) * 0.125 - 1048576.0


@triton.jit
def _scales(codes):  # type: ignore[no-untyped-def]
    """float32 scales from their E4M3 codes, uint8."""
    return (codes.to(tl.int32) << 20).to(tl.float32, bitcast=True) * 2.0**120


@triton.jit
def factors(scales, HAS_ZERO_POINT: tl.constexpr):  # type: ignore[no-untyped-def]
    """float32 factors of the numbers of `unpack`. `scales` are E4M3 codes, uint8."""
    return _scales(scales) if HAS_ZERO_POINT else _scales(scales) * 2.0**118


@triton.jit
def _to_e4m3(numbers):  # type: ignore[no-untyped-def]
    """Codes, int32, of numbers in [0, 448], ties to even. Below 2**-6 codes count steps of
    2**-9."""
    bits = numbers.to(tl.int32, bitcast=True)
    normal = ((bits + 0x7FFFF + ((bits >> 20) & 1)) >> 20) - (120 << 3)
    small = (numbers * 512.0 + 8388608.0).to(tl.int32, bitcast=True) - 0x4B000000
    return tl.where(numbers < 0.015625, small, normal)


@triton.jit
def _rounded(numbers):  # type: ignore[no-untyped-def]
    """Rounded to whole numbers, ties to even. Magnitudes must be below 2**22."""
    return numbers + 12582912.0 - 12582912.0


@triton.jit
def _scale_codes(extents, TOP: tl.constexpr):  # type: ignore[no-untyped-def]
    """E4M3 codes, uint8, of the scales that put such extents at TOP. Subnormal scales are rounded
    up."""
    scales = tl.div_rn(extents, tl.full(extents.shape, TOP, tl.float32))
    scales = tl.minimum(tl.maximum(scales, 0.001953125), 448.0)
    up = tl.ceil(scales * 512.0) * 0.001953125
    codes = _to_e4m3(tl.where(scales < 0.015625, up, scales))
    return tl.where(extents == 0.0, 0, codes).to(tl.uint8)


@triton.jit
def scale(largest, BITS: tl.constexpr):  # type: ignore[no-untyped-def]
    """E4M3 codes of scales, for groups without zero-points with the largest magnitudes
    `largest`."""
    return _scale_codes(largest, 16.0 if BITS == 8 else 6.0 if BITS == 4 else 1.0)


@triton.jit
def quantise(numbers, scales, BITS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Codes, int32, of float32 numbers under their scales, E4M3 codes, all [R, N]."""
    # If the scale is 0, all numbers are 0.
    steps = tl.div_rn(tl.abs(numbers), tl.where(scales == 0, 1.0, _scales(scales)))
    if BITS == 8:
        codes = _to_e4m3(tl.minimum(steps, 448.0))
    elif BITS == 2:
        codes = (steps > 0.5).to(tl.int32)
    else:
        # A middle between two magnitudes goes to the even code.
        codes = (steps > 0.25).to(tl.int32) + (steps >= 0.75) + (steps > 1.25) + (steps >= 1.75)
        codes += (steps > 2.5).to(tl.int32) + (steps >= 3.5) + (steps > 5.0)
    return tl.where((numbers < 0.0) & (codes > 0), codes | (1 << (BITS - 1)), codes)


@triton.jit
def quantise_from_zero_point(numbers):  # type: ignore[no-untyped-def]
    """INT4 codes of groups [16, N] along the first axis: int32 [16, N].

    Beside them, [N] each: E4M3 codes of scales and int16 zero-points.
    """
    low, high = tl.min(numbers, axis=0), tl.max(numbers, axis=0)
    largest = tl.maximum(tl.abs(low), tl.abs(high))
    scales = _scale_codes(tl.maximum(high - low, largest * 0.00732421875), 15.0)
    divisors = tl.where(scales == 0, 1.0, _scales(scales))
    begin = (tl.div_rn((low + high) * 0.5, divisors) - 7.5) * 8.0
    begin = tl.where(scales == 0, 0.0, _rounded(tl.minimum(tl.maximum(begin, -32767.0), 32767.0)))
    each = tl.broadcast_to(divisors[None, :], numbers.shape)
    steps = tl.div_rn(numbers, each) - (begin * 0.125)[None, :]
    codes = _rounded(tl.minimum(tl.maximum(steps, 0.0), 15.0)).to(tl.int32)
    return codes, scales, begin.to(tl.int16)


@triton.jit
def pack(codes, BITS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Codes, int32 [R, N], as bytes, uint8 [R, N * BITS // 8]."""
    if BITS == 2:
        low, high = tl.split(codes.reshape(codes.shape[0], codes.shape[1] // 2, 2))
        codes = low | (high << 2)
    if BITS < 8:
        low, high = tl.split(codes.reshape(codes.shape[0], codes.shape[1] // 2, 2))
        codes = low | (high << 4)
    return codes.to(tl.uint8)
