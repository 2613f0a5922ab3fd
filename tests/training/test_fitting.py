"""The fit: rank metrics against plain references, and a predictor that learns what can be learnt."""

import random

import pytest
import torch

from dynts_batch.training.fitting import FitConfig, fit_predictor, overlap, spearman
from dynts_batch.training.labels import LabelledTrace


def learnable_trace(seed: int) -> LabelledTrace:
    """One hidden coordinate decides the label, heavy-tailed as attention is."""
    generator = torch.Generator().manual_seed(seed)
    hidden_states = torch.randn(200, 16, generator=generator)
    return LabelledTrace(hidden_states, 1e-4 * (3 * hidden_states[:, 3]).exp())


def test_a_learnable_rule_is_learnt_and_measured_on_other_questions() -> None:
    traces = [learnable_trace(seed) for seed in range(20)]
    predictor, metrics, notes = fit_predictor(traces, FitConfig(epochs=30, tokens_per_batch=256))
    assert metrics.overlap["20"] > 0.9
    assert metrics.spearman > 0.95
    assert notes["num_traces"] == "18"
    fresh = learnable_trace(99)
    assert overlap(predictor(fresh.hidden_states), fresh.labels, 0.3) > 0.9


def test_the_same_seed_gives_the_same_predictor() -> None:
    traces = [learnable_trace(seed) for seed in range(4)]
    first, second = (fit_predictor(traces, FitConfig(epochs=2))[0] for _ in range(2))
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


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
