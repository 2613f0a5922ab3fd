"""What a quantised arena stores equals a plain reference, group by group,
and takes the bytes it promises."""

import pytest
import torch
from number_formats import round_trip

from dynts_batch.kvcache.arena import KVArena
from dynts_batch.kvcache.arena_shape import ArenaShape, Column
from dynts_batch.kvcache.policies.thinkv.thought import Thought
from dynts_batch.kvcache.policies.thinkv.thoughts import REASONING, TRANSITION
from dynts_batch.kvcache.stores.formats import KV_FORMATS, KVFormat
from dynts_batch.kvcache.stores.packed import PackedStore

pytestmark = pytest.mark.usefixtures("written_in")
NVFP4 = KV_FORMATS["nvfp4"]
BITS = pytest.mark.parametrize(("name", "bits"), [("nvfp4", 4.5), ("int4", 5.0), ("fp8", 8.5)])
FORMATS = pytest.mark.parametrize("name", list(KV_FORMATS))
LAYERS, HEADS, HEAD_DIM, CAPACITY = 2, 2, 32, 70
LENGTHS = torch.tensor([5, 16, 47, 64])
LANES = torch.arange(4)


def packed_arena(
    *, columns: tuple[Column, ...] = (), per_head: bool = False, stored_in: KVFormat = NVFP4
) -> KVArena:
    shape = ArenaShape(
        *(LAYERS, HEADS, HEAD_DIM, torch.float32),
        per_head=per_head,
        columns=columns,
        stored_in=stored_in,
    )
    return KVArena(shape, max_seqs=5, capacity=CAPACITY, device=torch.device("cpu"))


def prompts() -> torch.Tensor:
    """Keys and values by layer, right-padded with what must not matter, [layers, 2, lanes, H, T,
    D]."""
    torch.manual_seed(0)
    states = torch.randn(LAYERS, 2, len(LANES), HEADS, 64, HEAD_DIM)
    states[:, :, torch.arange(64) >= LENGTHS[:, None, None].expand(-1, HEADS, -1)] = 1e4
    return states


def write(arena: KVArena, states: torch.Tensor) -> None:
    for layer, (keys, values) in enumerate(states):
        arena.write_prompt(layer, LANES, LENGTHS, keys, values)


def reference(
    keys: torch.Tensor, values: torch.Tensor, ternary: tuple[int, ...] = (), form: KVFormat = NVFP4
) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values [tokens, D] of one lane and head as they come back: complete groups of 16
    tokens rounded, keys along each channel and values along each token, the others as they are.
    `ternary`: groups of that format."""
    keys, values = keys.clone(), values.clone()
    for group, begin in enumerate(range(0, len(keys) // 16 * 16, 16)):
        of_keys, of_values = ("ternary", "ternary") if group in ternary else (x.name for x in form)
        for channel in range(keys.shape[1]):
            column = keys[begin : begin + 16, channel]
            column[:] = torch.tensor(round_trip(column.tolist(), of_keys))
        for token in values[begin : begin + 16]:
            for first in range(0, len(token), 16):
                part = token[first : first + 16]
                part[:] = torch.tensor(round_trip(part.tolist(), of_values))
    return keys, values


def check_lane(
    arena: KVArena, lane: int, states: torch.Tensor, ternary: tuple[int, ...] = ()
) -> None:
    """The lane holds `states` [layers, 2, H, tokens, D], rounded as the reference rounds them."""
    length = states.shape[-2]
    for layer in range(LAYERS):
        keys = arena.keys(layer, torch.tensor([lane]), length)[0]
        values = arena.values(layer, torch.tensor([lane]), length)[0]
        for head in range(HEADS):
            expected = reference(*states[layer, :, head], ternary, arena.shape.stored_in or NVFP4)
            assert torch.equal(keys[head], expected[0])
            assert torch.equal(values[head], expected[1])


@FORMATS
def test_a_prompt_is_stored_as_the_reference_rounds_it_whatever_stands_beside_it(name: str) -> None:
    arena, states = packed_arena(stored_in=KV_FORMATS[name]), prompts()
    write(arena, states)
    for lane, length in enumerate(LENGTHS.tolist()):
        check_lane(arena, lane, states[:, :, lane, :, :length])


@FORMATS
def test_a_group_is_packed_when_its_last_token_comes(name: str) -> None:
    arena, states = packed_arena(stored_in=KV_FORMATS[name]), prompts()
    write(arena, states)
    lengths = LENGTHS.clone()
    rows = [states[:, :, lane, :, :length] for lane, length in enumerate(LENGTHS.tolist())]
    for _ in range(6):  # lane 3 is full then
        new = torch.randn(LAYERS, 2, len(LANES), HEADS, 1, HEAD_DIM)
        for layer, (keys, values) in enumerate(new):
            arena.append(layer, lengths, keys, values)
        lengths += 1
        rows = [torch.cat((row, new[:, :, lane]), -2) for lane, row in enumerate(rows)]
    for lane, row in enumerate(rows):
        check_lane(arena, lane, row)
    arena.move(2, 0, cache_len=53)
    check_lane(arena, 0, rows[2])


@pytest.mark.parametrize("name", ["nvfp4", "int4"])
@pytest.mark.parametrize("per_head", [False, True])
def test_an_eviction_regroups_the_survivors(name: str, per_head: bool) -> None:
    arena, states = packed_arena(per_head=per_head, stored_in=KV_FORMATS[name]), prompts()
    write(arena, states)
    before = [arena.stored(layer, 4, CAPACITY) for layer in range(LAYERS)]
    untouched = states[:, :, 1, :, :16]
    lanes, retained_len = [3, 2], torch.tensor([37, 32])
    kept = torch.stack([
        torch.cat((torch.randperm(int(LENGTHS[lane]))[:length].sort().values,
                   torch.arange(37 - length)))
        for lane, length in zip(lanes, retained_len.tolist(), strict=True)
        for _ in range(arena.shape.granularity[0] * arena.shape.granularity[1])
    ]).view(2, *arena.shape.granularity, 37)  # fmt: skip
    arena.evict(lanes, kept, retained_len.tolist())
    for row, lane in enumerate(lanes):
        survivors = torch.stack([
            torch.stack([
                torch.stack([
                    part[lane, head, kept[row, layer if per_head else 0, head if per_head else 0]]
                    for head in range(HEADS)
                ])
                for part in before[layer]
            ])
            for layer in range(LAYERS)
        ])[..., : retained_len[row], :]  # fmt: skip
        check_lane(arena, lane, survivors)
        # Values share scales within their own token only: moving them rounds nothing again.
        packed = int(retained_len[row]) // 16 * 16
        was_packed = kept[row, 0, 0, :packed] < int(LENGTHS[lane]) // 16 * 16
        values = arena.values(0, torch.tensor([lane]), packed)[0, 0]
        assert torch.equal(values[was_packed], survivors[0, 1, 0, :packed][was_packed])
    check_lane(arena, 1, untouched)


def test_groups_of_transitions_alone_become_ternary() -> None:
    arena, states = packed_arena(columns=(Thought.column,)), prompts()
    write(arena, states)
    slots = torch.arange(CAPACITY)
    thoughts = torch.where((slots >= 16) & (slots < 40), TRANSITION, REASONING)
    arena.set_column("thought", LANES, thoughts.float().expand(4, 1, 1, -1))
    check_lane(arena, 3, states[:, :, 3])
    kept = torch.arange(60).view(1, 1, 1, -1)
    before = torch.stack([torch.stack(arena.stored(layer, 4, 60)) for layer in range(LAYERS)])
    arena.evict([3], kept, [60])
    check_lane(arena, 3, before[:, :, 3], ternary=(1,))
    store = arena.layers[0]
    assert isinstance(store, PackedStore)
    assert not store.codes[:, 3, :, 1, 16 * HEAD_DIM // 4 :].any(), "2 bits a number"


@pytest.mark.parametrize("columns", [(), (Column("importance", per_head=True), Thought.column)])
@pytest.mark.parametrize("per_head", [False, True])
@BITS
def test_the_memory_promise_is_what_is_allocated(
    columns: tuple[Column, ...], per_head: bool, name: str, bits: float
) -> None:
    arena = packed_arena(columns=columns, per_head=per_head, stored_in=KV_FORMATS[name])
    tensors = [arena.positions, *arena.columns.values()]
    for store in arena.layers:
        assert isinstance(store, PackedStore)
        packed = store.codes.nbytes + store.scales.nbytes
        if store.zero_points is not None:
            packed += store.zero_points.nbytes
            tensors.append(store.zero_points)
        assert 8 * packed == bits * (2 * 5 * HEADS * (CAPACITY // 16 * 16) * HEAD_DIM)
        tensors += [store.codes, store.scales, store.buffer]
        tensors += [] if store.is_ternary is None else [store.is_ternary]
    assert isinstance(arena.layers[0], PackedStore)
    tensors.append(arena.layers[0].cache_len)
    assert arena.num_bytes == sum(tensor.nbytes for tensor in tensors)


@BITS
def test_the_peak_of_a_lane_counts_packed_groups_and_the_buffer(name: str, bits: float) -> None:
    shape = packed_arena(stored_in=KV_FORMATS[name]).shape
    plain = shape.kv_bytes_per_token
    assert shape.stored_bytes_per_token * 32 == plain * bits
    sizes = [n // 16 * 16 * plain * bits / 32 + n % 16 * plain for n in range(100)]
    assert [shape.peak_kv_bytes(n) for n in range(100)] == [max(sizes[: n + 1]) for n in range(100)]
