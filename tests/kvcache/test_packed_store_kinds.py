"""The packed store in C, and the one in Triton, hold and return the same bits as torch's, whatever is stored, appended and
evicted."""

import pytest
import torch
from kernel_compiler import check_compiles
from number_formats import hard_groups

from dynts_batch.kvcache.formats import KV_FORMATS
from dynts_batch.kvcache.native import can_run
from dynts_batch.kvcache.native_packed_store import SOURCE, NativePackedStore
from dynts_batch.kvcache.packed_store import PackedStore

LANES, HEADS, CAPACITY = 4, 2, 70


def store_kind(name: str) -> tuple[type[PackedStore], torch.device]:
    """And where it runs: a GPU, if there is one, for Triton, or else its interpreter."""
    if name == "C":
        if not can_run(SOURCE, torch.float32, torch.device("cpu"), 16):
            pytest.skip("no C compiler here")
        return NativePackedStore, torch.device("cpu")
    pytest.importorskip(
        "triton", reason="Triton comes with torch's GPU builds, and with the test extra"
    )
    from dynts_batch.kvcache.triton_packed_store import TritonPackedStore

    return TritonPackedStore, torch.device("cuda" if torch.cuda.is_available() else "cpu")


def hard_states(length: int, head_dim: int) -> torch.Tensor:
    """Keys and values [2, lanes, H, T, D] whose groups are hard to round, along tokens and along channels."""
    groups = hard_groups()
    count = 2 * LANES * HEADS * length * head_dim
    drawn = groups[torch.randint(len(groups), (count // 16,))]
    return torch.stack((
        drawn[: count // 32].view(LANES, HEADS, head_dim, length).transpose(2, 3),
        drawn[count // 32 :].view(LANES, HEADS, length, head_dim),
    ))  # fmt: skip


def same_bits(store: PackedStore, other: PackedStore) -> bool:
    """Of all that counts: the groups and buffers of live slots."""
    for lane, length in enumerate(store.cache_len.tolist()):
        whole, rest = length // 16, length % 16
        for name in ("codes", "scales"):
            one, two = (getattr(x, name)[:, lane, :, :whole] for x in (store, other))
            if not torch.equal(one, two):
                return False
        if store.zero_points is not None and other.zero_points is not None:
            one, two = (x.zero_points[lane, :, :whole] for x in (store, other))
            if not torch.equal(one, two):
                return False
        one, two = (x.buffer[:, lane, :, :rest] for x in (store, other))
        if not torch.equal(one, two):
            return False
        here = torch.tensor([lane], device=store.codes.device)
        for read in (PackedStore.keys, PackedStore.values):
            if not torch.equal(read(store, here, length), read(other, here, length)):
                return False
    return True


@pytest.mark.parametrize(
    ("kind", "dtype"), [("C", torch.float32), ("Triton", torch.float32), ("Triton", torch.bfloat16)]
)
@pytest.mark.parametrize("name", list(KV_FORMATS))
@pytest.mark.parametrize("head_dim", [16, 48, 128])
@pytest.mark.parametrize("per_head", [False, True])
def test_it_holds_the_same_bits_as_torchs(
    kind: str, dtype: torch.dtype, name: str, head_dim: int, per_head: bool
) -> None:
    written_in, device = store_kind(kind)
    cache_len = torch.tensor([0, 16, 47, 64], device=device)
    size = (LANES, HEADS, CAPACITY, head_dim)
    form, has_ternary = KV_FORMATS[name], name != "int4"
    store, other = stores = [
        each(size, dtype, cache_len, form=form, has_ternary=has_ternary, per_head=per_head)
        for each in (PackedStore, written_in)
    ]
    lanes = torch.tensor([1, 3, 2], device=device)
    prompts = hard_states(64, head_dim)[:, 1:].to(device, dtype)
    for each in stores:
        each.write(lanes, 0, cache_len[lanes], *prompts)
    assert same_bits(store, other)

    first = torch.arange(3, device=device)
    for keys, values in hard_states(16, head_dim)[:, :3].movedim(3, 0).to(device, dtype):
        slots = cache_len[:3].clone()
        # What a lane that does not decode writes where its next token will go harms nothing.
        other.append(first, slots, values * 3, keys * 3)
        cache_len[:3] += 1
        for each in stores:
            each.append(first, slots, keys, values)
        assert same_bits(store, other)

    kept = torch.rand(2, HEADS if per_head else 1, 60).argsort(-1)[..., :40].sort(-1).values
    is_transition = torch.rand(2, HEADS if per_head else 1, 3).repeat_interleave(16, -1) < 0.7
    marks = is_transition[..., :40].to(device) if has_ternary else None
    retained_len = torch.tensor([40, 33], device=device)
    for each in stores:
        each.evict(lanes[1:], kept.to(device), retained_len, marks)
    cache_len[lanes[1:]] = retained_len
    assert not has_ternary or (other.is_ternary is not None and other.is_ternary[2:].any())
    assert same_bits(store, other)


@pytest.mark.parametrize(
    ("bits", "is_keys", "has_zero_point"),
    [(4, False, False), (4, True, False), (8, True, False), (4, True, True)],
)
def test_the_kernel_compiles_for_gpus_that_are_not_here(
    bits: int, is_keys: bool, has_zero_point: bool
) -> None:
    written_in, _ = store_kind("Triton")
    check_compiles(
        written_in.__module__, "_append", codes="*u8", scales="*u8", zero_points="*i16", NUM_HEADS=4,
        HEAD_DIM=128, DIMS=128, BITS=bits, IS_KEYS=is_keys, HAS_ZERO_POINT=has_zero_point,
        HAS_TERNARY=True,
    )  # fmt: skip
