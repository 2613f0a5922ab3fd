"""Linear layers in 8 bits, for a CPU: the weights of a channel share a scale, and so do a token's
numbers.

oneDNN, which comes with torch, multiplies whole numbers exactly. So a token's output has the same
bits whatever its batch-mates. Knows no model.
"""

import torch

from dynts_batch.engine.model.int8.rounding import ZERO_POINT, round_rows, rounded, scale_rows
from dynts_batch.engine.model.packing import PackedWeight
from dynts_batch.errors import ConfigError

#: Channels that are rounded at once. Meanwhile their numbers are float32.
CHANNELS_AT_ONCE = 512


class Int8Weight(PackedWeight):
    """`PackedWeight` of rounded numbers: the largest one of each channel and each token is 127 or
    -127."""

    def _pack(self, weight: torch.Tensor) -> None:
        codes = torch.empty_like(weight, dtype=torch.int8)
        self._scales = torch.empty(len(weight))
        for start in range(0, len(weight), CHANNELS_AT_ONCE):
            part = slice(start, start + CHANNELS_AT_ONCE)
            codes[part], scales = rounded(weight[part])
            self._scales[part] = scales[:, 0]
        self._zero_points = torch.zeros(len(codes), dtype=torch.int32)
        self._bias = None if self._bias is None else self._bias.float()
        self._packed = torch.ops.onednn.qlinear_prepack(codes, None)
        self._multiply_codes = torch.ops.onednn.qlinear_pointwise.default

    def _product(self, inputs: torch.Tensor) -> torch.Tensor:
        # Signed codes would take a reference loop, a thousand times as slow.
        codes, scales = round_rows(inputs)
        sums = self._multiply_codes(
            codes, 1.0, ZERO_POINT, self._packed, self._scales, self._zero_points, None, 1.0, 0,
            torch.float32, "none", [], "",
        )  # fmt: skip
        return scale_rows(sums, scales, self._bias, inputs.dtype)


def check_int8(device: torch.device) -> None:
    """Check that `device` multiplies in 8 bits.

    Raises: ConfigError if not.
    """
    if device.type != "cpu":
        found = f"a model on {device.type}"
    elif not torch.cpu.get_capabilities().get("avx512_vnni", False):
        found = "a CPU without AVX-512 VNNI"
    elif not hasattr(torch.ops.onednn, "qlinear_prepack"):
        found = f"torch {torch.__version__} without oneDNN"
    else:
        return
    raise ConfigError(f"model.weights=int8 needs a CPU with AVX-512 VNNI and oneDNN, got {found}")
