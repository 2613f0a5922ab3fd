"""Sampling: Hugging Face's filters, and draws that depend on the row alone."""

import pytest
import torch
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from dynts_batch.config import SamplingConfig
from dynts_batch.engine.sampling import NO_TOKEN, RUN, sample
from dynts_batch.kvcache.counter_rng import sequence_key, uniform

SETTINGS = [
    SamplingConfig(temperature=0.7, top_k=5, top_p=1.0),
    SamplingConfig(temperature=1.3, top_k=0, top_p=0.6),
    SamplingConfig(temperature=0.6, top_k=20, top_p=0.95),
    SamplingConfig(temperature=1.0, top_k=0, top_p=1.0, min_p=0.2),
    SamplingConfig(temperature=1.0, top_k=12, top_p=0.8, min_p=0.1),
    SamplingConfig(temperature=1.0, top_k=0, top_p=1.0),
]


def huggingface_probs(logits: torch.Tensor, config: SamplingConfig) -> torch.Tensor:
    warpers = LogitsProcessorList([TemperatureLogitsWarper(config.temperature)])
    if config.top_k:
        warpers.append(TopKLogitsWarper(config.top_k))
    if config.top_p < 1:
        warpers.append(TopPLogitsWarper(config.top_p))
    if config.min_p:
        warpers.append(MinPLogitsWarper(config.min_p))
    return warpers(torch.zeros(1, 1, dtype=torch.long), logits.clone()).softmax(dim=-1)


@pytest.mark.parametrize("config", SETTINGS, ids=str)
def test_frequencies_are_those_of_huggingfaces_warpers(config: SamplingConfig) -> None:
    torch.manual_seed(0)
    logits = torch.randn(1, 40) * 2
    expected = huggingface_probs(logits, config)[0]
    draws = 20_000
    positions = torch.arange(draws)
    keys = torch.full((draws,), sequence_key(0, "a", 0))
    counts = (
        sample(logits.expand(draws, -1), config, keys, positions)[0].bincount(minlength=40) / draws
    )
    assert (counts[expected == 0] == 0).all(), "a filtered token was drawn"
    assert (counts - expected).abs().max() < 0.015


@pytest.mark.parametrize("num_tokens", [40, 10 * RUN])
def test_temperature_zero_is_the_first_of_the_largest(num_tokens: int) -> None:
    """Whole numbers, so that many are equal."""
    torch.manual_seed(0)
    logits = (3 * torch.randn(60, num_tokens)).round().bfloat16()
    keys = positions = torch.zeros(60, dtype=torch.long)
    found, _ = sample(logits, SamplingConfig(temperature=0.0), keys, positions)
    assert found.tolist() == [row.index(max(row)) for row in logits.tolist()]


@pytest.mark.parametrize("num_tokens", [40, 2 * RUN])
@pytest.mark.parametrize("config", [SamplingConfig(temperature=0.0), *SETTINGS], ids=str)
def test_from_what_is_no_number_nothing_is_drawn_and_a_token_of_minus_infinity_never_is(
    config: SamplingConfig, num_tokens: int
) -> None:
    torch.manual_seed(0)
    logits = torch.randn(7, num_tokens)
    keys, positions = torch.arange(7), torch.arange(7)
    expected, _ = sample(logits, config, keys, positions)
    bad = logits.clone()
    bad[0] = torch.nan
    bad[1, 17] = torch.nan
    bad[2, 39] = torch.inf
    bad[3] = -torch.inf
    found, _ = sample(bad, config, keys, positions)
    assert found.tolist() == [NO_TOKEN] * 4 + expected[4:].tolist()
    bad[4:, :39], bad[4:, 40:] = -torch.inf, -torch.inf
    assert sample(bad, config, keys, positions)[0][4:].tolist() == [39] * 3


def test_a_draw_depends_on_the_row_alone() -> None:
    logits = torch.randn(8, 40)
    keys = torch.tensor([sequence_key(7, f"r{i}", i % 2) for i in range(8)])
    positions = torch.arange(8)
    config = SamplingConfig(temperature=1.0)
    together, _ = sample(logits, config, keys, positions)
    shuffled = torch.randperm(8)
    assert torch.equal(
        sample(logits[shuffled], config, keys[shuffled], positions[shuffled])[0], together[shuffled]
    )


def test_keys_differ_by_seed_request_and_sample_without_collisions_of_their_texts() -> None:
    keys = {
        sequence_key(seed, rid, k)
        for seed in (0, 1)
        for rid in ("a", "b", "1", "a\0001")
        for k in (0, 1, 11)
    }
    assert len(keys) == 2 * 4 * 3


def test_uniform_is_uniform_over_keys_and_over_counters() -> None:
    for draws in (
        uniform(torch.arange(50_000), torch.tensor(3)),
        uniform(torch.tensor(3), torch.arange(50_000)),
    ):
        assert draws.min() >= 0
        assert draws.max() < 1
        histogram = torch.histc(draws, bins=20, min=0, max=1)
        assert ((histogram - 2500).abs() < 5 * 2500**0.5).all()
