"""Quantisation in plain Python, one number at a time: the reference of kvcache/formats.py."""

import math
import struct

import torch

#: Every E4M3 magnitude by its code: 4 bits of exponent with bias 7, 3 of mantissa; 127 is NaN.
E4M3 = [
    (mantissa / 8) * 2.0**-6 if exponent == 0 else (1 + mantissa / 8) * 2.0 ** (exponent - 7)
    for exponent in range(16)
    for mantissa in range(8)
][:127]
MAGNITUDES = {
    "nvfp4": [0, 0.5, 1, 1.5, 2, 3, 4, 6],
    "ternary": [0, 1],
    "fp8": E4M3,
    "int4": list(range(16)),
}
TOP = {"nvfp4": 6, "ternary": 1, "fp8": 16, "int4": 15}
SIGN = {"nvfp4": 8, "ternary": 2, "fp8": 128}


def float32(number: float) -> float:
    return struct.unpack("f", struct.pack("f", number))[0]


def nearest(number: float, magnitudes: list[float]) -> int:
    """The code of the magnitude nearest to `number` >= 0;
    of two equally near ones the even code."""
    return min(range(len(magnitudes)), key=lambda code: (abs(magnitudes[code] - number), code % 2))


def scale_of(extent: float, name: str) -> float:
    scale = min(max(float32(extent / TOP[name]), 2.0**-9), 448.0)
    if scale < 2.0**-6:
        scale = math.ceil(scale * 512) / 512
    return E4M3[nearest(scale, E4M3)] if extent else 0.0


def quantise_group(group: list[float], name: str) -> tuple[list[int], float, int]:
    """Codes, scale and zero-point (0 where the format has none) of 16 float32 numbers."""
    if name == "int4":
        return quantise_from_zero_point(group)
    scale = scale_of(max(abs(number) for number in group), name)
    if scale == 0:
        return [0] * 16, 0.0, 0
    codes = []
    for number in group:
        code = nearest(float32(abs(number) / scale), MAGNITUDES[name])
        codes.append(code + SIGN[name] if number < 0 and code else code)
    return codes, scale, 0


def quantise_from_zero_point(group: list[float]) -> tuple[list[int], float, int]:
    """The same in INT4: the 16 steps in the middle of the group, moved to an eighth of a step."""
    low, high = min(group), max(group)
    least = float32(max(abs(low), abs(high)) * 15 / 2048)
    scale = scale_of(max(float32(high - low), least), "int4")
    if scale == 0:
        return [0] * 16, 0.0, 0
    middle = float32(float32(float32(low + high) / 2) / scale)
    zero_point = round(min(max(float32(middle - 7.5) * 8, -32767), 32767))
    codes = []
    for number in group:
        steps = float32(float32(number / scale) - zero_point / 8)
        codes.append(nearest(max(steps, 0.0), MAGNITUDES["int4"]))
    return codes, scale, zero_point


def dequantise_group(codes: list[int], scale: float, zero_point: int, name: str) -> list[float]:
    if name == "int4":
        return [float32((code + zero_point / 8) * scale) for code in codes]
    sign = SIGN[name]
    return [
        float32((-1 if code & sign else 1) * MAGNITUDES[name][code & (sign - 1)] * scale)
        for code in codes
    ]


def round_trip(group: list[float], name: str) -> list[float]:
    return dequantise_group(*quantise_group(group, name), name)


def hard_groups() -> torch.Tensor:
    """Normal groups of many sizes, zeros, single outliers, numbers too small and too large, ties of
    every kind, and groups that lie far from 0."""
    torch.manual_seed(0)
    normal = torch.randn(300, 16) * 10.0 ** torch.linspace(-6, 5, 300)[:, None]
    outliers = torch.randn(40, 16) * 0.01
    outliers[:, 3] = 50.0
    ties = (torch.randint(-24, 25, (300, 16)) / 4) * 2.0 ** torch.randint(-12, 9, (300, 1))
    zeros = torch.zeros(2, 16)
    zeros[1] = -0.0
    coarse = torch.randn(100, 16).bfloat16().float()
    far = torch.randn(200, 16) + 10.0 ** torch.linspace(-1, 7, 200)[:, None] * torch.randn(200, 1)
    return torch.cat((normal, outliers, ties, zeros, coarse, far, torch.full((1, 16), 0.3)))
