"""Quantisation in plain Python, one number at a time: the reference of kvcache/formats.py."""

import struct

import torch

#: Every E4M3 magnitude by its code: 4 bits of exponent with bias 7, 3 of mantissa; 127 is NaN.
E4M3 = [
    (mantissa / 8) * 2.0**-6 if exponent == 0 else (1 + mantissa / 8) * 2.0 ** (exponent - 7)
    for exponent in range(16)
    for mantissa in range(8)
][:127]
MAGNITUDES = {"nvfp4": [0, 0.5, 1, 1.5, 2, 3, 4, 6], "ternary": [0, 1], "fp8": E4M3}
SIGN = {"nvfp4": 8, "ternary": 2, "fp8": 128}


def float32(number: float) -> float:
    return struct.unpack("f", struct.pack("f", number))[0]


def nearest(number: float, magnitudes: list[float]) -> int:
    """The code of the magnitude nearest to `number` >= 0; of two equally near ones the even code."""
    return min(range(len(magnitudes)), key=lambda code: (abs(magnitudes[code] - number), code % 2))


def quantise_group(group: list[float], name: str) -> tuple[list[int], float]:
    """Codes and scale of 16 float32 numbers."""
    largest = max(abs(number) for number in group)
    if largest == 0:
        return [0] * 16, 0.0
    scale = min(max(float32(largest / MAGNITUDES[name][-1]), 2.0**-9), 448.0)
    scale = E4M3[nearest(scale, E4M3)]
    codes = []
    for number in group:
        code = nearest(float32(abs(number) / scale), MAGNITUDES[name])
        codes.append(code + SIGN[name] if number < 0 and code else code)
    return codes, scale


def dequantise_group(codes: list[int], scale: float, name: str) -> list[float]:
    sign = SIGN[name]
    return [
        float32((-1 if code & sign else 1) * MAGNITUDES[name][code & (sign - 1)] * scale)
        for code in codes
    ]


def round_trip(group: list[float], name: str) -> list[float]:
    return dequantise_group(*quantise_group(group, name), name)


def hard_groups() -> torch.Tensor:
    """Normal groups of many sizes, zeros, single outliers, numbers too small and too large, and ties of every kind."""
    torch.manual_seed(0)
    normal = torch.randn(300, 16) * 10.0 ** torch.linspace(-6, 5, 300)[:, None]
    outliers = torch.randn(40, 16) * 0.01
    outliers[:, 3] = 50.0
    ties = (torch.randint(-24, 25, (300, 16)) / 4) * 2.0 ** torch.randint(-12, 9, (300, 1))
    zeros = torch.zeros(2, 16)
    zeros[1] = -0.0
    coarse = torch.randn(100, 16).bfloat16().float()
    return torch.cat((normal, outliers, ties, zeros, coarse))
