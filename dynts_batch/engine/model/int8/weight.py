"""Linear layers in 8 bits, for a CPU: the weights of a channel share a scale, and so do a token's
numbers.

Whole numbers are multiplied exactly. So a token's output has the same bits whatever its
batch-mates. Knows no model.
"""

from collections.abc import Sequence

import torch

from dynts_batch.engine.model.int8.products import product_kind
from dynts_batch.engine.model.int8.rounding import round_into
from dynts_batch.engine.model.packing import PackedWeight
from dynts_batch.errors import ConfigError

#: Channels that are rounded at once. Without a C compiler their numbers are float32 meanwhile.
CHANNELS_AT_ONCE = 512


class Int8Weight(PackedWeight):
    """`PackedWeight` of rounded numbers: the largest one of each channel and each token is 127 or
    -127."""

    @staticmethod
    def takes(weight: torch.Tensor) -> bool:
        return weight.device.type == "cpu" and weight.dtype in (torch.float32, torch.bfloat16)

    def _pack(self, weights: Sequence[torch.Tensor]) -> None:
        codes = torch.empty(sum(map(len, weights)), self.in_features, dtype=torch.int8)
        scales = torch.empty(len(codes), 1)
        parts = [part for weight in weights for part in weight.split(CHANNELS_AT_ONCE)]
        sizes = [len(part) for part in parts]
        for part, its_codes, its_scales in zip(
            parts, codes.view(torch.uint8).split(sizes), scales.split(sizes), strict=True
        ):
            round_into(its_codes, its_scales, part, 0)
        bias = None if self._bias is None else self._bias.float()
        self._multiply_rounded = product_kind(self.in_features)(codes, scales.squeeze(1), bias)

    def _product(self, inputs: torch.Tensor) -> torch.Tensor:
        return self._multiply_rounded(inputs)


def check_int8(device: torch.device) -> None:
    """Check that `device` multiplies in 8 bits.

    Raises: ConfigError if not.
    """
    if device.type != "cpu":
        raise ConfigError(f"model.weights=int8 needs a CPU, got a model on {device.type}")
    product_kind(width=16)
