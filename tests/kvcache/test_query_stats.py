"""What queries are like before RoPE: taken back, averaged, and turned forward again."""

import math

import torch

from dynts_batch.kvcache.layer_states import AttentionRule
from dynts_batch.kvcache.query_stats import LayerQueries, as_numbers, as_pairs, turns

FREQUENCY = torch.tensor([1.0, 0.03, 0.0007])


def turned(query: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """[T, D]: `query` [D] as RoPE turns it, in plain Python."""
    rows = []
    for p in positions.tolist():
        row = [0.0] * 6
        for f, w in enumerate(FREQUENCY.tolist()):
            a, b, c, s = query[f].item(), query[f + 3].item(), math.cos(w * p), math.sin(w * p)
            row[f], row[f + 3] = a * c - b * s, b * c + a * s
        rows.append(row)
    return torch.tensor(rows)


def test_of_one_vector_turned_the_mean_is_that_vector_and_nothing_is_scattered() -> None:
    torch.manual_seed(0)
    query = torch.randn(6)
    stats = LayerQueries.of(
        turned(query, torch.arange(50))[None], FREQUENCY, AttentionRule(1.0, None, None)
    )
    torch.testing.assert_close(stats.mean[0], as_pairs(query))
    torch.testing.assert_close(stats.magnitude[0], as_pairs(query).abs())
    assert stats.variance.max() < 1e-5
    assert torch.equal(as_numbers(as_pairs(query)), query)
    far = torch.tensor([3, 70_000])
    torch.testing.assert_close(
        stats.at(far)[:, 0], as_pairs(turned(query, far)), atol=1e-4, rtol=1e-4
    )


def test_the_variance_is_that_of_each_number_around_the_mean() -> None:
    torch.manual_seed(0)
    queries = torch.tensor([1.0, 2, 3, 4, 5, 6]) + 0.5 * torch.randn(1, 20_000, 6)
    unturned = LayerQueries.of(queries, torch.zeros(3), AttentionRule(1.0, None, None))
    torch.testing.assert_close(unturned.variance, torch.full((1, 3), 0.25), atol=0.01, rtol=0)


def test_angles_stay_exact_far_out() -> None:
    (found,) = turns(torch.tensor([100_003]), torch.tensor([1.0]))
    assert abs(found.item() - complex(math.cos(100_003), math.sin(100_003))) < 1e-6
