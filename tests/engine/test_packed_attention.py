"""Attention over the packed store equals attention over what it dequantises to."""

import pytest
import torch

from dynts_batch.engine import packed_attention
from dynts_batch.engine.packed_attention import attend_packed
from dynts_batch.kvcache.arena import ArenaShape, KVArena
from dynts_batch.kvcache.probs import Options, additive_mask, attention_probs
from dynts_batch.kvcache.stores import PackedStore


@pytest.mark.parametrize("capacity", [80, 75])
@pytest.mark.parametrize("per_head", [False, True])
@pytest.mark.parametrize("window", [None, 30])
@pytest.mark.parametrize("has_sinks", [False, True])
def test_attention_equals_that_over_the_dequantised_store(
    capacity: int,
    per_head: bool,
    window: int | None,
    has_sinks: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(packed_attention, "RUN_GROUPS", 2)
    rows, heads, group, head_dim = 5, 2, 3, 32
    shape = ArenaShape(
        1, heads, head_dim, torch.float32, per_head=per_head, columns=("thought",), quantize=True
    )
    arena = KVArena(shape, rows + 1, capacity, torch.device("cpu"))
    lengths = torch.tensor([1, 15, 16, 50, capacity])
    states = torch.randn(2, rows, heads, capacity, head_dim)
    arena.write_prompt(0, torch.arange(rows), lengths, *states)
    kept = torch.arange(capacity).expand(1, *shape.granularity, -1)
    arena.evict([4], kept, lengths[4:])  # column thought is all transitions: ternary groups
    query, last_slots = torch.randn(rows, heads * group, 1, head_dim) * 3, lengths - 1
    stored = torch.rand(rows, heads if per_head else 1, 200).argsort(-1)[..., :capacity]
    stored = stored.sort(-1).values
    newest = last_slots[:, None, None].expand(-1, stored.shape[1], 1)
    stored = stored.scatter(-1, newest, 200)
    positions = torch.full((rows,), 200)
    options = Options(0.3, window, torch.randn(heads * group) if has_sinks else None)

    store = arena.layers[0]
    assert isinstance(store, PackedStore)
    output = attend_packed(query, store, last_slots, positions, stored, options, max_len=capacity)

    visible = (torch.arange(capacity) <= last_slots[:, None, None])[:, :, None]
    if window is not None:
        visible = visible & (stored > 200 - window)[:, :, None]
    keys, values = arena.stored(0, rows, capacity)
    probs = attention_probs(query, keys, additive_mask(visible, torch.float32), options)
    expected = torch.einsum("bkgts,bksd->bkgtd", probs, values).view(query.shape)
    torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-5)
