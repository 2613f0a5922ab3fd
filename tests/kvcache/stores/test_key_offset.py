"""A store with an offset holds what a store without one holds of keys that lack it,
gives them back with it, and attends to them better."""

from collections.abc import Iterator

import pytest
import torch

from dynts_batch.engine.attention.decode_query import DecodeQuery
from dynts_batch.engine.attention.steps import packed_decode
from dynts_batch.kvcache.arena import KVArena
from dynts_batch.kvcache.arena_shape import ArenaShape
from dynts_batch.kvcache.layer_states import AttentionRule
from dynts_batch.kvcache.stores.formats import KV_FORMATS
from dynts_batch.kvcache.stores.packed import PackedStore

LANES, HEADS, HEAD_DIM, TOKENS = 3, 2, 32, 70
LENGTHS = torch.tensor([TOKENS, 33, 48])
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def decided_anew(written_in: None) -> Iterator[None]:
    packed_decode.cache_clear()
    yield
    packed_decode.cache_clear()


def biased_states(bias: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Keys and values [R, H, T, D], and what all keys have in common, [H, D]."""
    torch.manual_seed(0)
    keys, values = torch.randn(2, LANES, HEADS, TOKENS, HEAD_DIM)
    offset = bias * torch.randn(HEADS, HEAD_DIM)
    return keys + offset[:, None], values, offset


def filled(
    name: str, keys: torch.Tensor, values: torch.Tensor, offset: torch.Tensor | None
) -> KVArena:
    """Prompts without their last token, which is appended; then the first lane loses a third."""
    shape = ArenaShape(1, HEADS, HEAD_DIM, torch.float32, stored_in=KV_FORMATS[name])
    arena = KVArena(shape, LANES, TOKENS + 2, CPU, () if offset is None else [offset])
    arena.write_prompt(0, torch.arange(LANES), LENGTHS - 1, keys, values)
    rows = torch.arange(LANES)
    newest = (states[rows, :, LENGTHS - 1].unsqueeze(2) for states in (keys, values))
    arena.append(0, LENGTHS - 1, *newest)
    kept = torch.cat((torch.arange(20), torch.arange(43, TOKENS)))
    arena.evict([0], kept.view(1, 1, 1, -1), [len(kept)])
    return arena


@pytest.mark.parametrize("name", list(KV_FORMATS))
def test_it_holds_the_bits_of_keys_that_lack_the_offset_and_reads_them_with_it(name: str) -> None:
    keys, values, offset = biased_states(bias=8.0)
    arena = filled(name, keys, values, offset)
    lacking = filled(name, keys - offset[:, None], values, None)
    store, other = arena.layers[0], lacking.layers[0]
    assert isinstance(store, PackedStore)
    assert isinstance(other, PackedStore)
    for part in ("codes", "scales", "buffer"):
        assert torch.equal(getattr(store, part), getattr(other, part))
    lanes = torch.tensor([2, 0])
    read, without = arena.keys(0, lanes, 47), lacking.keys(0, lanes, 47)
    assert torch.equal(read, without + offset[:, None])
    assert torch.equal(arena.values(0, lanes, 47), lacking.values(0, lanes, 47))
    ((in_place,), _), (stored, _) = next(arena.keys_in_place(lanes, 47)), arena.stored(0, 1, 47)
    assert torch.equal(in_place, read)
    assert torch.equal(stored[0], read[1])
    arena.move(2, 1, 48)
    assert torch.equal(arena.keys(0, torch.tensor([1]), 47)[0], read[0])


def attention(arena: KVArena, query: torch.Tensor) -> torch.Tensor:
    """Of one query per row to all that its lane holds, [R, Q, 1, D]."""
    store, lengths = arena.layers[0], torch.tensor([47, 33, 48])
    assert isinstance(store, PackedStore)
    rule = AttentionRule(HEAD_DIM**-0.5, None, None)
    positions = torch.arange(TOKENS + 2, dtype=torch.int32).expand(LANES, 1, -1)
    asked = DecodeQuery(query, lengths - 1, lengths - 1, positions, rule)
    return packed_decode(arena.shape, CPU)(asked, store, max_len=48)


def exact_attention(arena: KVArena, query: torch.Tensor) -> torch.Tensor:
    """To the keys that the arena gives back, in float64."""
    lengths = torch.tensor([47, 33, 48])
    keys, values = (states.double() for states in arena.stored(0, LANES, 48))
    grouped = query.double().view(LANES, HEADS, -1, HEAD_DIM)
    logits = grouped @ keys.transpose(2, 3) * HEAD_DIM**-0.5
    hidden = torch.arange(48) >= lengths[:, None]
    logits = logits.masked_fill(hidden[:, None, None], -torch.inf)
    return (logits.softmax(-1) @ values).view(query.shape)


@pytest.mark.parametrize("name", list(KV_FORMATS))
def test_attention_is_that_to_the_keys_with_their_offset(name: str) -> None:
    keys, values, offset = biased_states(bias=8.0)
    arena = filled(name, keys, values, offset)
    query = torch.randn(LANES, 2 * HEADS, 1, HEAD_DIM)
    expected = exact_attention(arena, query).float()
    torch.testing.assert_close(attention(arena, query), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["nvfp4", "fp8"])
def test_without_the_offset_a_large_bias_costs_attention_four_times_the_error(name: str) -> None:
    """And keys that a policy reads differ from the model's by as much less."""
    keys, values, offset = biased_states(bias=20.0)
    query = torch.randn(LANES, 2 * HEADS, 1, HEAD_DIM)
    # Values of few bits are exact, so that all error is that of keys.
    values = values.sign() * 0.5
    kept = torch.cat((torch.arange(20), torch.arange(43, TOKENS)))
    exact = keys.clone()
    exact[0, :, : len(kept)] = keys[0, :, kept]
    plain = KVArena(ArenaShape(1, HEADS, HEAD_DIM, torch.float32), LANES, TOKENS + 2, CPU)
    plain.write_prompt(0, torch.arange(LANES), LENGTHS, keys, values)
    plain.evict([0], kept.view(1, 1, 1, -1), [len(kept)])
    expected = exact_attention(plain, query)
    errors, key_errors = [], []
    for taken in (offset, None):
        arena = filled(name, keys, values, taken)
        errors.append((attention(arena, query) - expected).norm())
        read = arena.keys(0, torch.arange(1), 47)[0]
        key_errors.append((read - exact[0, :, :47]).norm())
    assert errors[0] < errors[1] / 4
    assert key_errors[0] < key_errors[1] / 4
