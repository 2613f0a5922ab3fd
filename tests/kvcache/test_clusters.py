"""The representatives of random points equal a slow K-means in plain Python, whatever else is in the batch."""

import pytest
import torch
from cluster_reference import slow_representatives

from dynts_batch.kvcache import native
from dynts_batch.kvcache.clusters import SOURCE, highest, representatives


@pytest.fixture(autouse=True, params=["torch", "C"])
def written_in(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "torch":
        monkeypatch.setattr(native, "can_run", lambda *_: False)
    elif not native.can_run(SOURCE, torch.float32, torch.device("cpu"), native.VECTOR):
        pytest.skip("no C compiler here")


@pytest.mark.parametrize("num_different", [40, 3])
def test_representatives_equal_a_slow_reference_and_do_not_depend_on_the_batch(
    num_different: int,
) -> None:
    """Of sets of several sizes, and where most points are equal to others."""
    torch.manual_seed(num_different)
    points = torch.randn(6, num_different, 5)[:, torch.arange(40) % num_different]
    num_points = torch.tensor([40, 40, 33, 16, 8, 5])
    num_kept = torch.tensor([32, 8, 16, 15, 4, 4])
    found = representatives(points, num_points, num_kept)
    for row, (size, count) in enumerate(zip(num_points.tolist(), num_kept.tolist(), strict=True)):
        expected = slow_representatives(points[row, :size].double().tolist(), count)
        assert found[row].nonzero().flatten().tolist() == expected
        one = slice(row, row + 1)
        alone = representatives(points[one, :size], num_points[one], num_kept[one])
        assert torch.equal(alone[0], found[row, :size])


def test_of_well_separated_groups_one_point_each_stays() -> None:
    torch.manual_seed(0)
    groups = 100 * torch.eye(4)[torch.arange(20) % 4] + torch.randn(20, 4)
    (kept,) = representatives(groups[None], torch.tensor([20]), torch.tensor([4]))
    assert sorted((kept.nonzero().flatten() % 4).tolist()) == [0, 1, 2, 3]


def test_the_highest_scores_stay_and_of_equal_ones_the_first() -> None:
    scores = torch.tensor([[1.0, 3.0, 3.0, 3.0, 9.0]])
    kept = highest(scores, num_points=torch.tensor([4]), num_kept=torch.tensor([2]))
    assert kept.tolist() == [[False, True, True, False, False]]
