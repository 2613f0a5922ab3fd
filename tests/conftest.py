"""Shared fixtures: tiny random models, made once a session."""

import os
from pathlib import Path

import pytest
import torch

if (
    not torch.cuda.is_available()
):  # Triton's kernels run in its interpreter; it asks when it is imported
    os.environ["TRITON_INTERPRET"] = "1"
from tiny_models import make_tiny_model

torch.set_num_threads(1)  # several processes share two cores in these tests


@pytest.fixture(scope="session")
def tiny_model_dirs(tmp_path_factory: pytest.TempPathFactory) -> "TinyModels":
    return TinyModels(tmp_path_factory.mktemp("tiny"))


class TinyModels(dict[str, Path]):
    """Folder of each architecture's tiny checkpoint, made on first use."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def __missing__(self, architecture: str) -> Path:
        self[architecture] = make_tiny_model(architecture, self._folder)
        return self[architecture]
