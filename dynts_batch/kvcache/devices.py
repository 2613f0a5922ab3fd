"""Which fast code a device can run. native/ decides for itself: it is for CPUs."""

from importlib.util import find_spec

import torch


def runs_triton(device: torch.device) -> bool:
    """Whether Triton's kernels run there. If Triton is not installed, their modules cannot be
    imported."""
    return device.type == "cuda" and find_spec("triton") is not None
