"""What tests of code that is written twice share."""

import pytest
import torch

from dynts_batch.kvcache import native
from dynts_batch.kvcache.compaction import SOURCE


@pytest.fixture(params=["torch", "C"])
def written_in(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs a test in torch, and in C where there is a compiler."""
    if request.param == "torch":
        monkeypatch.setattr(native, "can_run", lambda *_: False)
    elif not native.can_run(SOURCE, torch.float32, torch.device("cpu"), native.VECTOR):
        pytest.skip("no C compiler here")
