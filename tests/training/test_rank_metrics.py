"""Rank metrics against plain references."""

import random

import pytest
import torch

from dynts_batch.training.rank_metrics import average, overlap, spearman


@pytest.mark.parametrize("share", [0.2, 0.3, 0.4])
def test_overlap_is_the_share_of_the_true_top_found(share: float) -> None:
    rng = random.Random(0)
    predicted, true = (torch.tensor(rng.sample(range(50), 50)).float() for _ in range(2))
    k = int(50 * share)
    tops = [set(sorted(range(50), key=lambda i: -x[i])[:k]) for x in (predicted, true)]
    assert overlap(predicted, true, share) == pytest.approx(len(tops[0] & tops[1]) / k)
    assert overlap(true, true, share) == 1


def test_spearman_of_a_monotone_map_is_one_and_of_its_reverse_minus_one() -> None:
    x = torch.randn(40)
    assert spearman(x, x.exp()) == pytest.approx(1)
    assert spearman(x, -x.exp()) == pytest.approx(-1)


def test_every_trace_counts_the_same_however_long_it_is() -> None:
    true = torch.arange(10.0)
    short, long = (true, true, true), (-true.repeat(9), true.repeat(9), true.repeat(9))
    metrics = average([short, long])
    assert metrics.overlap["20"] == pytest.approx(0.5)
    assert metrics.num_traces == 2
    assert metrics.mse == pytest.approx((4 * true.square()).mean().item() / 2)
