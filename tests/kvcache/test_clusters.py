"""The representatives of random points equal a slow K-means in plain Python,
whatever else is in the batch."""

import pytest
import torch
from cluster_reference import slow_representatives

from dynts_batch.kvcache.policies.thinkv.clusters import Cut, highest, representatives

pytestmark = pytest.mark.usefixtures("written_in")


@pytest.mark.parametrize("num_different", [40, 3])
def test_representatives_equal_a_slow_reference_and_do_not_depend_on_the_batch(
    num_different: int,
) -> None:
    """Of stretches of several sizes, of points in two parts, in two layers;
    and where most points are equal to others."""
    torch.manual_seed(num_different)
    layers = [
        torch.randn(5, 2, num_different, 3)[:, :, torch.arange(40) % num_different]
        for _ in range(2)
    ]
    where = torch.tensor([4, 1, 2])
    cuts = [
        *(Cut(0, 0, 40, 32), Cut(1, 0, 40, 8), Cut(2, 7, 33, 16)),
        *(Cut(2, 0, 16, 15), Cut(1, 30, 8, 4), Cut(0, 3, 5, 4), Cut(0, 8, 6, 0)),
    ]
    found = representatives(layers, where, cuts)
    assert found.shape == (len(cuts), 2, 40)
    for number, cut in enumerate(cuts):
        alone = representatives(layers, where, [cut])
        assert torch.equal(alone[0], found[number, :, : cut.size])
        assert not found[number, :, cut.size :].any()
        for layer, stays in zip(layers, found[number], strict=True):
            points = layer[where[cut.row], :, cut.start : cut.start + cut.size].transpose(0, 1)
            expected = slow_representatives(points.flatten(1).double().tolist(), cut.num_kept)
            assert stays.nonzero().flatten().tolist() == (expected if cut.num_kept else [])


def test_of_well_separated_groups_one_point_each_stays() -> None:
    torch.manual_seed(0)
    groups = 100 * torch.eye(4)[torch.arange(20) % 4] + torch.randn(20, 4)
    ((kept,),) = representatives([groups[None, None]], torch.tensor([0]), [Cut(0, 0, 20, 4)])
    assert sorted((kept.nonzero().flatten() % 4).tolist()) == [0, 1, 2, 3]


def test_the_highest_scores_stay_and_of_equal_ones_the_first() -> None:
    scores = torch.tensor([[1.0, 3.0, 3.0, 3.0, 9.0]])
    kept = highest(scores, num_points=torch.tensor([4]), num_kept=torch.tensor([2]))
    assert kept.tolist() == [[False, True, True, False, False]]
