"""Prefill attention in runs of queries equals attention in one piece."""

import pytest
import torch

from dynts_batch.engine.attention import steps as attention
from dynts_batch.engine.attention.steps import attend_causal, attend_masked, causal_mask
from dynts_batch.kvcache.layer_states import AttentionRule


@pytest.mark.parametrize(
    ("window", "has_sinks"), [(None, True), (5, False), (5, True), (300, False)]
)
def test_attention_in_runs_of_queries_equals_attention_in_one_piece(
    window: int | None, has_sinks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    length = 301
    monkeypatch.setattr(attention, "CAUSAL_QUERIES", 64)
    query, key, value = torch.randn(2, 4, length, 8), *torch.randn(2, 2, 2, length, 8)
    rule = AttentionRule(0.3, window, torch.randn(4) if has_sinks else None)
    position = torch.arange(length)
    mask = causal_mask(position, position, window, torch.float32)
    torch.testing.assert_close(
        attend_causal(query, key, value, rule),
        attend_masked(query, key, value, mask, rule),
        rtol=1e-5,
        atol=1e-6,
    )
