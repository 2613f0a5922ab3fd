"""The arena stores what it is given, and after an eviction holds the gathered originals."""

import pytest
import torch

from dynts_batch.kvcache.arena import KVArena
from dynts_batch.kvcache.arena_shape import ArenaShape, Column

CPU = torch.device("cpu")


def filled_arena(*, per_head: bool) -> KVArena:
    shape = ArenaShape(2, 3, 4, torch.float32, per_head=per_head, columns=(Column("importance"),))
    arena = KVArena(shape, max_seqs=4, capacity=10, device=CPU)
    torch.manual_seed(0)
    lanes = torch.arange(4)
    for layer in range(2):
        keys, values = torch.randn(2, 4, 3, 10, 4)
        arena.write_prompt(layer, lanes, torch.full((4,), 10), keys, values)
    slots = torch.arange(10).expand(4, 10)
    arena.write_column("positions", lanes, slots, slots)
    arena.write_column("importance", lanes, slots, torch.randn(4, 10))
    return arena


@pytest.mark.parametrize("per_head", [False, True])
def test_after_an_eviction_stored_keys_equal_the_gathered_originals(per_head: bool) -> None:
    arena = filled_arena(per_head=per_head)
    before = [tuple(t.clone() for t in arena.stored(layer, 4, 10)) for layer in range(2)]
    columns = {name: column.clone() for name, column in arena.columns.items()}
    lanes, granularity = [3, 1], arena.shape.granularity
    kept_slots = torch.stack(
        [torch.randperm(10)[:6].sort().values for _ in range(2 * granularity[0] * granularity[1])]
    )
    kept_slots = kept_slots.view(2, *granularity, 6)
    arena.evict(lanes, kept_slots, [6, 6])
    for row, lane in enumerate(lanes):
        for layer in range(2):
            for head in range(3):
                kept = kept_slots[row, layer if per_head else 0, head if per_head else 0]
                for old, new in zip(before[layer], arena.stored(layer, 4, 6), strict=True):
                    assert torch.equal(new[lane, head], old[lane, head, kept])
        assert torch.equal(
            arena.columns["importance"][lane, ..., :6],
            columns["importance"][lane].gather(-1, kept_slots[row]),
        )
        assert torch.equal(arena.positions[lane, ..., :6].long(), kept_slots[row])
    for layer in range(2):
        for old, new in zip(before[layer], arena.stored(layer, 4, 10), strict=True):
            assert torch.equal(new[[0, 2]], old[[0, 2]]), "lanes that evict nothing are untouched"


def test_append_and_move() -> None:
    arena = filled_arena(per_head=False)
    keys, values = torch.randn(2, 3, 1, 4), torch.randn(2, 3, 1, 4)
    arena.append(1, torch.tensor([5, 2]), keys, values)
    assert torch.equal(arena.stored(1, 4, 10)[0][0, :, 5], keys[0, :, 0])
    assert torch.equal(arena.stored(1, 4, 10)[1][1, :, 2], values[1, :, 0])
    arena.move(3, 0, cache_len=7)
    for layer in range(2):
        for tensor in arena.stored(layer, 4, 7):
            assert torch.equal(tensor[0], tensor[3])


def test_the_memory_promise_is_what_is_allocated() -> None:
    shape = ArenaShape(2, 3, 4, torch.bfloat16, per_head=True, columns=(Column("importance"),))
    arena = KVArena(shape, max_seqs=5, capacity=7, device=CPU)
    tensors = [arena.positions, *arena.columns.values()]
    tensors += [tensor for layer in range(2) for tensor in arena.stored(layer, 5, 7)]
    assert arena.num_bytes == sum(tensor.numel() * tensor.itemsize for tensor in tensors)
