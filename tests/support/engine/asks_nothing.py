"""Finds operations that make a GPU's host wait, on a CPU too."""

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

CHANGING = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


class AsksNothing(TorchDispatchMode):
    """Refuses operations that wait for a value, or whose result's shape depends on one:
    of indices, masks."""

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if operation is torch.ops.aten.index.Tensor:
            changes = any(index is not None and index.dtype == torch.bool for index in args[1])
        else:
            changes = bool(CHANGING & set(operation.tags))
        assert not changes, f"{operation} asks the host"
        return operation(*args, **(kwargs or {}))
