"""What tests of code that is written twice share."""

import pytest
import torch

from dynts_batch.kvcache import native
from dynts_batch.kvcache.compaction import SOURCE
from dynts_batch.kvcache.stores.native_packed import SOURCE as PACKED_SOURCE


@pytest.fixture(params=["torch", "C"])
def written_in(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs a test in torch, and in C where there is a compiler."""
    if request.param == "torch":
        monkeypatch.setattr(native, "can_run", lambda *_: False)
        return
    for source in (SOURCE, PACKED_SOURCE):
        if not native.can_run(source, torch.float32, torch.device("cpu")):
            pytest.skip("no C compiler here")
