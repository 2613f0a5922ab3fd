"""The packed store in C holds and returns the same bits as torch's, whatever is stored, appended and evicted."""

import pytest
import torch
from number_formats import hard_groups

from dynts_batch.kvcache.formats import KV_FORMATS
from dynts_batch.kvcache.native import can_run
from dynts_batch.kvcache.native_packed_store import SOURCE, NativePackedStore
from dynts_batch.kvcache.packed_store import PackedStore

pytestmark = pytest.mark.skipif(
    not can_run(SOURCE, torch.float32, torch.device("cpu"), 16), reason="no C compiler here"
)
LANES, HEADS, CAPACITY = 4, 2, 70


def hard_states(length: int, head_dim: int) -> torch.Tensor:
    """Keys and values [2, lanes, H, T, D] whose groups are hard to round, along tokens and along channels."""
    groups = hard_groups()
    count = 2 * LANES * HEADS * length * head_dim
    drawn = groups[torch.randint(len(groups), (count // 16,))]
    return torch.stack((
        drawn[: count // 32].view(LANES, HEADS, head_dim, length).transpose(2, 3),
        drawn[count // 32 :].view(LANES, HEADS, length, head_dim),
    ))  # fmt: skip


def same_bits(store: PackedStore, native: NativePackedStore) -> bool:
    """Of all that counts: the groups and buffers of live slots."""
    for lane, length in enumerate(store.cache_len.tolist()):
        whole, rest = length // 16, length % 16
        for name in ("codes", "scales"):
            one, other = (getattr(x, name)[:, lane, :, :whole] for x in (store, native))
            if not torch.equal(one, other):
                return False
        if store.zero_points is not None and native.zero_points is not None:
            one, other = (x.zero_points[lane, :, :whole] for x in (store, native))
            if not torch.equal(one, other):
                return False
        one, other = (x.buffer[:, lane, :, :rest] for x in (store, native))
        if not torch.equal(one, other):
            return False
        for read in (PackedStore.keys, PackedStore.values):
            one, other = (read(x, torch.tensor([lane]), length) for x in (store, native))
            if not torch.equal(one, other):
                return False
    return True


@pytest.mark.parametrize("name", list(KV_FORMATS))
@pytest.mark.parametrize("head_dim", [16, 48, 128])
@pytest.mark.parametrize("per_head", [False, True])
def test_it_holds_the_same_bits_as_torchs(name: str, head_dim: int, per_head: bool) -> None:
    cache_len = torch.tensor([0, 16, 47, 64])
    size = (LANES, HEADS, CAPACITY, head_dim)
    form, has_ternary = KV_FORMATS[name], name != "int4"
    kinds = (PackedStore, NativePackedStore)
    store, native = stores = [
        kind(size, torch.float32, cache_len, form=form, has_ternary=has_ternary, per_head=per_head)
        for kind in kinds
    ]
    lanes, prompts = torch.tensor([1, 3, 2]), hard_states(64, head_dim)[:, 1:]
    for each in stores:
        each.write(lanes, 0, cache_len[lanes], *prompts)
    assert same_bits(store, native)

    first = torch.arange(3)
    for keys, values in hard_states(16, head_dim)[:, :3].movedim(3, 0):
        slots = cache_len[:3].clone()
        cache_len[:3] += 1
        for each in stores:
            each.append(first, slots, keys, values)
        assert same_bits(store, native)

    kept = torch.rand(2, HEADS if per_head else 1, 60).argsort(-1)[..., :40].sort(-1).values
    is_transition = torch.rand(2, HEADS if per_head else 1, 3).repeat_interleave(16, -1) < 0.7
    for each in stores:
        marks = is_transition[..., :40] if has_ternary else None
        each.evict(torch.tensor([3, 2]), kept, torch.tensor([40, 33]), marks)
    cache_len[2:] = torch.tensor([33, 40])
    assert not has_ternary or (native.is_ternary is not None and native.is_ternary[2:].any())
    assert same_bits(store, native)
