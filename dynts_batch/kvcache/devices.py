"""What a device can run of the code that is faster than torch's operations, beside native/, which is for CPUs."""

from importlib.util import find_spec

import torch


def runs_triton(device: torch.device) -> bool:
    """Whether Triton's kernels run there; their modules cannot be imported where Triton is not installed."""
    return device.type == "cuda" and find_spec("triton") is not None
