"""The packed store in C, and the one in Triton, hold and return the same bits as torch's, whatever
is stored, appended and evicted."""

import pytest
import torch
from asks_nothing import AsksNothing
from kernel_compiler import check_compiles
from number_formats import hard_groups

from dynts_batch.kvcache import devices, native
from dynts_batch.kvcache.arena import KVArena
from dynts_batch.kvcache.arena_shape import ArenaShape
from dynts_batch.kvcache.native import can_run
from dynts_batch.kvcache.policies.thinkv.thought import Thought
from dynts_batch.kvcache.stores.formats import KV_FORMATS
from dynts_batch.kvcache.stores.native_packed import SOURCES, NativePackedStore
from dynts_batch.kvcache.stores.packed import PackedStore

LANES, HEADS, CAPACITY = 4, 2, 70
CPU = torch.device("cpu")


def store_kind(name: str) -> tuple[type[PackedStore], torch.device]:
    """And where it runs: a GPU, if there is one, for Triton, or else its interpreter."""
    if name == "C":
        if not all(can_run(source, dtype, CPU, 16) for dtype, source in SOURCES.items()):
            pytest.skip("no C compiler here")
        return NativePackedStore, CPU
    pytest.importorskip(
        "triton", reason="Triton comes with torch's GPU builds, and with the test extra"
    )
    from dynts_batch.kvcache.stores.triton_packed import TritonPackedStore

    return TritonPackedStore, torch.device("cuda" if torch.cuda.is_available() else "cpu")


def hard_states(length: int, head_dim: int) -> torch.Tensor:
    """Keys and values [2, lanes, H, T, D] whose groups are hard to round,
    along tokens and along channels."""
    groups = hard_groups()
    count = 2 * LANES * HEADS * length * head_dim
    drawn = groups[torch.randint(len(groups), (count // 16,))]
    return torch.stack((
        drawn[: count // 32].view(LANES, HEADS, head_dim, length).transpose(2, 3),
        drawn[count // 32 :].view(LANES, HEADS, length, head_dim),
    ))  # fmt: skip


def same_bits(store: PackedStore, other: PackedStore) -> bool:
    """Of all that counts: the groups and buffers of live slots, and what they are read as."""
    both, lanes = (store, other), torch.arange(LANES, device=store.codes.device)
    read = [torch.stack((each.keys(lanes, 64), each.values(lanes, 64))) for each in both]
    for lane, length in enumerate(store.cache_len.tolist()):
        whole, rest = length // 16, length % 16
        pairs = [
            [part[:, lane, :, :length] for part in read],
            [each.codes[:, lane, :, :whole] for each in both],
            [each.scales[:, lane, :, :whole] for each in both],
            [each.buffer[:, lane, :, :rest] for each in both],
        ]
        if store.zero_points is not None and other.zero_points is not None:
            pairs.append([store.zero_points[lane, :, :whole], other.zero_points[lane, :, :whole]])
        if not all(torch.equal(*pair) for pair in pairs):
            return False
    return True


@pytest.mark.parametrize("name", list(KV_FORMATS))
@pytest.mark.parametrize(
    ("kind", "dtype", "head_dim", "per_head", "has_offset"),
    [
        ("C", torch.float32, 16, False, False),
        ("C", torch.float32, 48, True, True),
        ("C", torch.float32, 128, False, False),
        ("C", torch.bfloat16, 16, True, False),
        ("C", torch.bfloat16, 64, False, True),
        ("Triton", torch.float32, 48, True, True),
        pytest.param("Triton", torch.bfloat16, 16, False, False, marks=pytest.mark.long),
    ],
)
def test_it_holds_the_same_bits_as_torchs(
    kind: str, dtype: torch.dtype, name: str, head_dim: int, per_head: bool, has_offset: bool
) -> None:
    written_in, device = store_kind(kind)
    if (kind, name, dtype, device.type) == ("Triton", "int4", torch.bfloat16, "cpu"):
        pytest.skip("Triton's interpreter cuts numbers off where bfloat16 rounds")
    cache_len = torch.tensor([13, 16, 61, 64], device=device)
    size = (LANES, HEADS, CAPACITY, head_dim)
    form, has_ternary = KV_FORMATS[name], name == "nvfp4"
    num_marks = has_ternary * (HEADS if per_head else 1)
    offset = torch.randn(HEADS, head_dim).to(device, dtype) if has_offset else None
    store, other = stores = [
        each(size, dtype, cache_len, form=form, num_marks=num_marks, key_offset=offset)
        for each in (PackedStore, written_in)
    ]
    lanes = torch.tensor([1, 3, 0, 2], device=device)
    prompts = hard_states(64, head_dim).to(device, dtype)
    for each in stores:
        each.write(lanes, 0, cache_len[lanes], *prompts)
    assert same_bits(store, other)

    first = torch.arange(3, device=device)
    for keys, values in hard_states(3, head_dim)[:, :3].movedim(3, 0).to(device, dtype):
        slots = cache_len[:3].clone()
        # What a lane that does not decode writes where its next token will go harms nothing.
        other.append(first, slots, values * 3, keys * 3)
        cache_len[:3] += 1
        for each in stores:
            each.append(first, slots, keys, values)
        assert same_bits(store, other)  # lane 1 begins a group, lanes 0 and 2 complete one

    kept = torch.rand(2, HEADS if per_head else 1, 60).argsort(-1)[..., :40].sort(-1).values
    is_coarse = torch.rand(2, HEADS if per_head else 1, 3).repeat_interleave(16, -1) < 0.7
    marks = is_coarse[..., :40].to(device) if has_ternary else None
    retained_len = torch.tensor([40, 33], device=device)
    for each in stores:
        each.evict(lanes[[1, 3]], kept.to(device), retained_len, marks)
    cache_len[lanes[[1, 3]]] = retained_len
    assert not has_ternary or (other.is_ternary is not None and other.is_ternary[2:].any())
    assert same_bits(store, other)


@pytest.mark.parametrize("is_triton", [False, True])
def test_an_arena_in_triton_asks_nothing_of_the_host(
    is_triton: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither where a token completes a group, nor in an eviction that may make groups ternary."""
    device = store_kind("Triton")[1] if is_triton else torch.device("cpu")
    monkeypatch.setattr(devices, "runs_triton", lambda _: is_triton)
    monkeypatch.setattr(native, "can_run", lambda *_: False)
    shape = ArenaShape(
        *(1, 1, 16, torch.float32), columns=(Thought.column,), stored_in=KV_FORMATS["nvfp4"]
    )
    arena, lanes = KVArena(shape, 2, 40, device), torch.arange(2, device=device)
    states = torch.randn(2, 2, 1, 40, 16, device=device)
    lengths, retained_len = (torch.tensor(n, device=device) for n in ([33, 40], [31, 24]))

    def use() -> None:
        arena.write_prompt(0, lanes, lengths, *states)
        arena.evict([0, 1], torch.arange(31, device=device).expand(2, 1, 1, -1), retained_len)
        arena.append(0, retained_len, *states[..., :1, :])

    with AsksNothing():
        if is_triton:
            use()
        else:
            with pytest.raises(AssertionError, match="asks the host"):
                use()


def test_the_kernels_compile_for_gpus_that_are_not_here() -> None:
    written_in, _ = store_kind("Triton")
    common = {"scales": "*u8", "zero_points": "*i16", "NUM_HEADS": 4, "HEAD_DIM": 128, "DIMS": 128}
    kinds = [
        {"BITS": bits, "IS_KEYS": is_keys, "HAS_ZERO_POINT": has_zero_point,
         "HAS_TERNARY": has_ternary}
        for bits, is_keys, has_zero_point, has_ternary in [
            (4, False, False, True), (8, True, False, False), (4, True, True, False)
        ]
    ]  # fmt: skip
    reads, packs = {"SLOTS": 32, "codes": "*i32"}, {"codes": "*u8"}
    own = {"_append_token": packs, "_read_slots": reads, "_write_group": packs}
    check_compiles(
        written_in.__module__,
        *((name, common | kind | arguments) for name, arguments in own.items() for kind in kinds),
    )
