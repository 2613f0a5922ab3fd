"""What stays comes first, in order, and lanes that lose nothing are untouched: in C as in torch."""

import pytest
import torch

from dynts_batch.kvcache.compaction import ascending, compact

pytestmark = pytest.mark.usefixtures("written_in")


def test_ascending_slots_of_rows_that_keep_different_counts() -> None:
    stays = torch.tensor([[0, 1, 1, 0, 1], [1, 0, 0, 0, 0]]).bool()
    assert ascending(stays, 3).tolist() == [[1, 2, 4], [0, 1, 2]]
    assert ascending(stays[:1].expand(2, 5)[:, None], 2).tolist() == [[[1, 2]], [[1, 2]]]


@pytest.mark.parametrize("is_shared", [False, True], ids=["per head", "shared by heads"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int32])
def test_the_slots_that_stay_come_first(dtype: torch.dtype, is_shared: bool) -> None:
    torch.manual_seed(0)
    stored = torch.randint(0, 1000, (2, 5, 3, 20, 4)).to(dtype)
    before, lanes, retained_len = stored.clone(), torch.tensor([3, 0]), torch.tensor([9, 14])
    stays = torch.zeros(2, 1 if is_shared else 3, 20, dtype=torch.bool)
    for row, head in torch.cartesian_prod(torch.arange(2), torch.arange(stays.shape[1])).tolist():
        stays[row, head, torch.randperm(20)[: retained_len[row]]] = True
    compact(stored, lanes, ascending(stays, 14), retained_len)
    for row, (lane, count) in enumerate(zip(lanes.tolist(), retained_len.tolist(), strict=True)):
        for head in range(3):
            kept = before[:, lane, head, stays[row, 0 if is_shared else head]]
            assert torch.equal(stored[:, lane, head, :count], kept)
    assert torch.equal(stored[:, [1, 2, 4]], before[:, [1, 2, 4]])
