"""Attention over the packed store, in torch and in C,
equals attention over what it dequantises to."""

from functools import cache

import pytest
import torch

from dynts_batch.engine.attention import native as native_attention
from dynts_batch.engine.attention import packed as packed_attention
from dynts_batch.engine.attention.decode_query import DecodeQuery
from dynts_batch.kvcache.arena import KVArena
from dynts_batch.kvcache.arena_shape import ArenaShape
from dynts_batch.kvcache.layer_states import AttentionRule
from dynts_batch.kvcache.policies.thinkv.thought import Thought
from dynts_batch.kvcache.probs import additive_mask, attention_probs
from dynts_batch.kvcache.stores.formats import KV_FORMATS
from dynts_batch.kvcache.stores.native_packed import NativePackedStore
from dynts_batch.kvcache.stores.packed import PackedStore

LENGTHS = torch.tensor([1, 15, 16, 50, 75])
ROWS, KV_HEADS, CAPACITY, NEWEST = len(LENGTHS), 2, 80, 200


@cache
def filled_arena(
    head_dim: int, *, per_head: bool, name: str = "nvfp4", dtype: torch.dtype = torch.float32
) -> KVArena:
    """Of the last row, some groups are ternary."""
    torch.manual_seed(head_dim)
    shape = ArenaShape(
        1,
        KV_HEADS,
        head_dim,
        dtype,
        per_head=per_head,
        columns=(Thought.column,),
        stored_in=KV_FORMATS[name],
    )
    arena = KVArena(shape, ROWS + 1, CAPACITY, torch.device("cpu"))
    states = torch.randn(2, ROWS, KV_HEADS, CAPACITY, head_dim).to(dtype)
    arena.write_prompt(0, torch.arange(ROWS), LENGTHS, *states)
    slots = torch.arange(CAPACITY).expand(1, *shape.granularity, -1)
    # Transitions are 0, the others 1.
    arena.set_column("thought", torch.tensor([4]), ((slots > 35) & (slots < 50)).float())
    arena.evict([4], slots, LENGTHS[4:].tolist())
    store = arena.layers[0]
    assert isinstance(store, PackedStore)
    if store.is_ternary is None:
        return arena
    assert store.is_ternary[4, :, :4].flatten().tolist() == [True, True, False, False] * (
        KV_HEADS if per_head else 1
    )
    return arena


def stored_positions(*, per_head: bool) -> torch.Tensor:
    """Ascending, the newest token at its own position."""
    stored = torch.rand(ROWS, KV_HEADS if per_head else 1, NEWEST).argsort(-1)[..., :CAPACITY]
    newest = (LENGTHS - 1)[:, None, None].expand(-1, stored.shape[1], 1)
    return stored.sort(-1).values.scatter(-1, newest, NEWEST).int()


@pytest.mark.parametrize("written_in", ["torch", "C"])
@pytest.mark.parametrize(
    ("head_dim", "name"),
    [(16, "nvfp4"), (32, "nvfp4"), (64, "nvfp4"), (128, "nvfp4"), (64, "int4"), (64, "fp8")],
)
@pytest.mark.parametrize("group", [1, 3])
@pytest.mark.parametrize("per_head", [False, True])
@pytest.mark.parametrize("window", [None, 1, 100])
@pytest.mark.parametrize("has_sinks", [False, True])
def test_attention_equals_that_over_the_dequantised_store(
    written_in: str,
    head_dim: int,
    name: str,
    group: int,
    per_head: bool,
    window: int | None,
    has_sinks: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(packed_attention, "RUN_GROUPS", 2)
    arena = filled_arena(head_dim, per_head=per_head, name=name)
    query = torch.randn(ROWS, KV_HEADS * group, 1, head_dim) * 3
    stored = stored_positions(per_head=per_head)
    sinks = torch.randn(KV_HEADS * group) if has_sinks else None
    rule = AttentionRule(head_dim**-0.5, window, sinks)
    asked = DecodeQuery(query, LENGTHS - 1, torch.full((ROWS,), NEWEST), stored, rule)

    store = arena.layers[0]
    if written_in == "torch":
        assert isinstance(store, PackedStore)
        output = packed_attention.attend_packed(asked, store, max_len=75)
    else:
        if not isinstance(store, NativePackedStore):
            pytest.skip("no C compiler here")
        output = native_attention.attend_packed(asked, store, max_len=75)

    visible = (torch.arange(75) < LENGTHS[:, None, None])[:, :, None]
    if window is not None:
        visible = visible & (stored[..., :75] > NEWEST - window)[:, :, None]
    keys, values = arena.stored(0, ROWS, 75)
    probs = attention_probs(query, keys, additive_mask(visible, torch.float32), rule)
    expected = torch.einsum("rhgts,rhsd->rhgtd", probs, values).view(query.shape)
    torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("written_in", ["torch", "C"])
@pytest.mark.parametrize("name", ["nvfp4", "int4", "fp8"])
def test_half_precision_rounds_the_output_alone(written_in: str, name: str) -> None:
    """Logits were rounded as well: by up to 4% of the largest value."""
    store = filled_arena(64, per_head=False, name=name, dtype=torch.bfloat16).layers[0]
    assert isinstance(store, PackedStore)
    query = (torch.randn(ROWS, KV_HEADS, 1, 64) * 3).bfloat16()
    stored, rule = stored_positions(per_head=False), AttentionRule(0.125, None, None)
    asked = DecodeQuery(query, LENGTHS - 1, torch.full((ROWS,), NEWEST), stored, rule)
    if written_in == "C" and not isinstance(store, NativePackedStore):
        pytest.skip("no C compiler here")
    attention = native_attention if written_in == "C" else packed_attention
    output = attention.attend_packed(asked, store, max_len=75)
    keys, values = (states.double() for states in store.stored(ROWS, 75))
    logits = (query.double() @ keys.transpose(2, 3)) * rule.scale
    visible = (torch.arange(75) < LENGTHS[:, None])[:, None, None]
    expected = logits.masked_fill(~visible, -torch.inf).softmax(dim=-1) @ values
    torch.testing.assert_close(output.double(), expected, rtol=2**-8, atol=1e-4)


def test_a_row_has_the_same_bits_alone_and_with_other_threads() -> None:
    arena = filled_arena(64, per_head=False)
    store = arena.layers[0]
    if not isinstance(store, NativePackedStore):
        pytest.skip("no C compiler here")
    query, stored = torch.randn(ROWS, 8, 1, 64), stored_positions(per_head=False)
    tensors = (query, LENGTHS - 1, torch.full((ROWS,), NEWEST), stored)
    rule = AttentionRule(0.125, None, None)
    together = native_attention.attend_packed(DecodeQuery(*tensors, rule), store, max_len=75)
    num_threads = torch.get_num_threads()
    try:
        for rows, threads in [(1, 2), (2, 1), (4, 3)]:
            torch.set_num_threads(threads)
            some = DecodeQuery(*(tensor[:rows] for tensor in tensors), rule)
            output = native_attention.attend_packed(some, store, max_len=75)
            assert torch.equal(output, together[:rows])
    finally:
        torch.set_num_threads(num_threads)
