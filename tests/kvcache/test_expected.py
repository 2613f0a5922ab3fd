"""The scores of `expected` in C are those of the slow reference, and of torch."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from policy_references import reference_scores
from policy_slots import CAPACITY, make_slots

from dynts_batch.config import PolicyConfig
from dynts_batch.kvcache.native import can_run
from dynts_batch.kvcache.policies import expected, make_policy
from dynts_batch.kvcache.policy import Policy
from dynts_batch.kvcache.stores.formats import KV_FORMATS
from dynts_batch.kvcache.view import Slots

pytestmark = pytest.mark.skipif(
    not can_run(expected.SOURCE, torch.float32, torch.device("cpu"), 16), reason="no C compiler"
)


def policy_of(**options: Any) -> Policy:
    return make_policy(PolicyConfig("expected", budget=CAPACITY, window_size=3, options=options))


def scores_in_c(policy: Policy, slots: Slots, monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    """Of the candidates; those of the others, which nobody reads, as 0. The last layer's are in C,
    and the second one's, which has a sliding window, are not."""
    layers: list[int] = []
    in_c = expected.Expected._in_c
    with monkeypatch.context() as patch:
        patch.setattr(
            expected.Expected,
            "_in_c",
            lambda self, layer: layers.extend(layer.layers) or in_c(self, layer),
        )
        scores = policy.score(slots)
    assert sorted(layers) == [0, 2]
    return scores * slots.is_candidate[:, None, None]


def scores_in_torch(policy: Policy, slots: Slots, monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    with monkeypatch.context() as patch:
        patch.setattr(expected, "can_run_both", lambda *_: False)
        return policy.score(slots) * slots.is_candidate[:, None, None]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("head_dim", [16, 48])
def test_they_are_those_of_the_slow_reference(
    head_dim: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = policy_of()
    slots = make_slots(policy, head_dim=head_dim, dtype=dtype)
    found = scores_in_c(policy, slots, monkeypatch)
    for row, layers in enumerate(found):
        is_candidate = slots.is_candidate[row]
        wanted = torch.tensor(reference_scores("expected", slots, policy, row))
        torch.testing.assert_close(layers[..., is_candidate], wanted[..., is_candidate])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("stored_in", [None, *KV_FORMATS])
@pytest.mark.parametrize("shared_index", [False, True])
def test_they_are_those_of_torch_wherever_keys_are_stored_and_whatever_a_row_keeps(
    shared_index: bool, stored_in: str | None, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows with two candidates and with many."""
    policy = policy_of(shared_index=shared_index)
    form = None if stored_in is None else KV_FORMATS[stored_in]
    slots = make_slots(policy, head_dim=16, dtype=dtype, stored_in=form)
    counts = [(5, 3), (30, 8), (20, 10)]
    rows = [
        row._replace(num_first=first, num_last=last)
        for row, (first, last) in zip(slots.rows, counts, strict=True)
    ]
    slots = replace(slots, rows=rows)
    found, wanted = (
        scores(policy, slots, monkeypatch) for scores in (scores_in_c, scores_in_torch)
    )
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("unlikeness", [0.5, 10.0])
def test_candidates_that_are_all_alike_have_the_scores_of_their_attention(
    unlikeness: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And none if all values are 0."""
    policy = policy_of(unlikeness=unlikeness)
    slots = make_slots(policy, head_dim=16)
    for layer in range(3):
        keys, values = slots.arena.stored(layer, 5, CAPACITY)
        keys[:] = torch.tensor([1.0, 2.0]).repeat(8)
        values[4] = 0
    found = scores_in_c(policy, slots, monkeypatch)[:, [0, 2]]
    assert found.isfinite().all()
    assert not found[2].any()
    assert (found[:2].sum(dim=-1) - 1).abs().max() < 1e-5
