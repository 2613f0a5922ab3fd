"""Finds operations that make a GPU's host wait, on a CPU too."""

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

CHANGING = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


class AsksNothing(TorchDispatchMode):
    """Refuses operations that wait for a value, or whose result's shape depends on one."""

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        assert not CHANGING & set(operation.tags), f"{operation} asks the host"
        return operation(*args, **(kwargs or {}))
