"""The Triton decode attention over the packed store, on a GPU or by Triton's interpreter, against
torch's and against attention over the dequantised store written out."""

import random

import pytest
import torch
from kernel_compiler import check_compiles
from packed_cases import PackedCase

from dynts_batch.engine.attention import packed as packed_attention
from dynts_batch.engine.attention.decode_query import DecodeQuery
from dynts_batch.kvcache.layer_states import AttentionRule
from dynts_batch.kvcache.stores.formats import KV_FORMATS
from dynts_batch.kvcache.stores.packed import PackedStore

pytest.importorskip(
    "triton", reason="Triton comes with torch's GPU builds, and with the test extra"
)
from dynts_batch.engine.attention.triton_packed import attend_packed
from dynts_batch.kvcache.stores.triton_packed import TritonPackedStore

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
LENGTHS = torch.tensor([1, 15, 16, 70, 150])


def in_triton(store: PackedStore) -> TritonPackedStore:
    made = TritonPackedStore.__new__(TritonPackedStore)
    for name, value in vars(store).items():
        setattr(made, name, value.to(DEVICE) if isinstance(value, torch.Tensor) else value)
    return made


def run(
    case: PackedCase, rule: AttentionRule, num_splits: int, rows: int | None = None
) -> torch.Tensor:
    """Of the first `rows`, by default all."""
    *tensors, _ = case.asked(rule)
    sinks = None if rule.sinks is None else rule.sinks.to(DEVICE)
    there = AttentionRule(rule.scale, rule.sliding_window, sinks)
    max_len = int(case.lengths.max())
    store = in_triton(case.store)
    asked = DecodeQuery(*(tensor[:rows].to(DEVICE) for tensor in tensors), there)
    output = attend_packed(asked, store, max_len=max_len, num_splits=num_splits)
    return output.float().cpu()


def check(case: PackedCase, rule: AttentionRule, num_splits: int) -> None:
    expected = case.written_out(rule)
    max_len = int(case.lengths.max())
    by_torch = packed_attention.attend_packed(case.asked(rule), case.store, max_len=max_len)
    case.forget_the_dead()
    output = run(case, rule, num_splits)
    torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(output, by_torch, rtol=1e-5, atol=1e-5)


SHAPES = [
    (64, 4, False, None, False, 1),
    (64, 4, False, None, False, 3),
    (16, 1, True, None, True, 5),
    (96, 7, False, 120, False, 2),
    (32, 2, True, 120, True, 2),
    (32, 2, False, 1, False, 2),
    (64, 20, False, None, True, 2),
    (128, 7, True, 250, False, 2),
]
#: What a format changes is how a group of 16 numbers is read, whatever the shape:
#: each shape in one format.
SHORT = {(shape, list(KV_FORMATS)[n % len(KV_FORMATS)]) for n, shape in enumerate(SHAPES)}


@pytest.mark.parametrize(
    ("name", "head_dim", "group", "per_head", "window", "has_sinks", "num_splits"),
    [
        pytest.param(name, *shape, marks=[] if (shape, name) in SHORT else pytest.mark.long)
        for shape in SHAPES
        for name in KV_FORMATS
    ],
)
def test_equals_attention_over_the_dequantised_store(
    name: str, head_dim: int, group: int, per_head: bool, window: int | None, has_sinks: bool,
    num_splits: int,
) -> None:  # fmt: skip
    case = PackedCase(
        LENGTHS, head_dim, group, name=name, per_head=per_head, has_ternary=name == "nvfp4"
    )
    sinks = torch.randn(case.query.shape[1]) * 4 if has_sinks else None
    check(case, AttentionRule(head_dim**-0.5, window, sinks), num_splits)


def test_lanes_too_short_for_a_group_are_all_buffer() -> None:
    check(PackedCase(torch.tensor([1, 3, 9])), AttentionRule(0.125, None, None), 3)


@pytest.mark.parametrize(
    "seed", [*range(3), *(pytest.param(n, marks=pytest.mark.long) for n in range(3, 24))]
)
def test_equals_it_on_random_cases(seed: int) -> None:
    rng = random.Random(seed)
    name, head_dim, group = (
        rng.choice(list(KV_FORMATS)),
        rng.choice([16, 48, 64]),
        rng.choice([1, 3]),
    )
    case = PackedCase(
        torch.tensor([rng.choice((rng.randint(1, 200), 16 * rng.randint(1, 12)))
                      for _ in range(4)]),
        head_dim, group, num_kv_heads=rng.choice([1, 2]), name=name, per_head=rng.random() < 0.5,
        has_ternary=name == "nvfp4" and rng.random() < 0.5, seed=seed
    )  # fmt: skip
    sinks = torch.randn(case.query.shape[1]) if rng.random() < 0.5 else None
    window = rng.choice([None, rng.randint(1, 400)])
    check(case, AttentionRule(head_dim**-0.5, window, sinks), rng.randint(1, 6))


@pytest.fixture
def bfloat16_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton's interpreter multiplies bfloat16 numbers as the integers that it holds them in."""
    if DEVICE == "cuda":
        return
    from triton.language import bfloat16, float32
    from triton.runtime.interpreter import InterpreterBuilder

    dot = InterpreterBuilder.create_dot

    def widened(self, a, b, *rest):
        wide = [self.cast_impl(x, float32) if x.dtype.scalar == bfloat16 else x for x in (a, b)]
        return dot(self, *wide, *rest)

    monkeypatch.setattr(InterpreterBuilder, "create_dot", widened)


@pytest.mark.usefixtures("bfloat16_products")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", list(KV_FORMATS))
def test_half_precision_is_as_good_as_its_inputs(name: str, dtype: torch.dtype) -> None:
    case = PackedCase(LENGTHS, name=name, dtype=dtype, has_ternary=name == "nvfp4")
    rule = AttentionRule(0.125, None, None)
    expected = case.written_out(rule)
    tolerance = 4 * torch.finfo(dtype).eps
    scale = float(case.store.values(torch.arange(len(LENGTHS)), 150).abs().max())
    output = run(case, rule, 2)
    torch.testing.assert_close(output, expected, rtol=tolerance, atol=tolerance * scale)


def test_a_row_has_the_same_bits_alone() -> None:
    case, rule = (
        PackedCase(LENGTHS, has_ternary=True),
        AttentionRule(0.125, None, None),
    )
    together = run(case, rule, 2)
    for rows in (1, 4):
        assert torch.equal(run(case, rule, 2, rows), together[:rows])


def test_the_kernel_compiles_for_gpus_that_are_not_here() -> None:
    kinds = [
        (4, 4, False, True, "*bf16"),
        (4, 4, True, False, "*bf16"),
        (8, 8, False, False, "*fp16"),
        (8, 4, False, False, "*bf16"),
        (4, 4, False, True, "*fp32"),
    ]
    common = {
        **dict.fromkeys(("key_codes", "value_codes"), "*i32"),
        **dict.fromkeys(("key_scales", "value_scales"), "*u8"),
        **{"out": "*fp32", "zero_points": "*i16", "NUM_KV_HEADS": 4, "GROUP": 7, "HEAD_DIM": 128},
        **{"ROWS": 16, "DIMS": 128, "SLOTS": 64, "HAS_WINDOW": True},
    }
    kernels = []
    for key_bits, value_bits, has_zero_point, has_ternary, dtype in kinds:
        own = {"KEY_BITS": key_bits, "VALUE_BITS": value_bits, "HAS_ZERO_POINT": has_zero_point}
        types = dict.fromkeys(("query", "key_buffer", "value_buffer"), dtype)
        kernels.append(("_attend_packed_run", common | own | types | {"HAS_TERNARY": has_ternary}))
    check_compiles(attend_packed.__module__, *kernels)
