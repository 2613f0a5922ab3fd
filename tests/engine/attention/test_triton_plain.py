"""The Triton decode attention, on a GPU or by Triton's interpreter,
against attention written out."""

import pytest
import torch
from decode_cases import NUM_KV_HEADS, RandomCache, random_cache, written_out
from kernel_compiler import check_compiles

from dynts_batch.kvcache.layer_states import AttentionRule

pytest.importorskip(
    "triton", reason="Triton comes with torch's GPU builds, and with the test extra"
)
from dynts_batch.engine.attention.triton_plain import decode_attention

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def run(
    cache: RandomCache, rule: AttentionRule, num_splits: int, dtype: torch.dtype
) -> torch.Tensor:
    moved = cache.each(
        lambda tensor: tensor.to(DEVICE, dtype if tensor.is_floating_point() else None)
    )
    sinks = None if rule.sinks is None else rule.sinks.to(DEVICE)
    there = AttentionRule(rule.scale, rule.sliding_window, sinks)
    asked = moved.asked(there)
    return decode_attention(asked, moved.keys, moved.values, num_splits).float().cpu()


@pytest.mark.parametrize(
    ("head_dim", "group", "per_head", "window", "has_sinks", "num_splits"),
    [
        (64, 4, False, None, False, 1),
        (64, 4, False, None, False, 3),
        (16, 1, True, None, True, 5),
        (96, 7, False, 120, False, 2),
        (32, 2, True, 120, True, 2),
        (32, 2, False, 1, False, 2),
        (64, 20, False, None, True, 2),
    ],
)
def test_equals_attention_written_out(
    head_dim: int,
    group: int,
    per_head: bool,
    window: int | None,
    has_sinks: bool,
    num_splits: int,
) -> None:
    cache = random_cache(head_dim, group, per_head=per_head)
    sinks = torch.randn(NUM_KV_HEADS * group) * 4 if has_sinks else None
    rule = AttentionRule(head_dim**-0.5, window, sinks)
    output = run(cache, rule, num_splits, torch.float32)
    torch.testing.assert_close(output, written_out(cache, rule), rtol=1e-5, atol=5e-6)


def test_half_precision_is_as_good_as_its_inputs() -> None:
    cache = random_cache(64, 4, per_head=False)
    rule = AttentionRule(0.125, None, None)
    rounded = cache.each(
        lambda tensor: tensor.half().float() if tensor.is_floating_point() else tensor
    )
    output = run(cache, rule, 2, torch.float16)
    torch.testing.assert_close(output, written_out(rounded, rule), rtol=5e-3, atol=5e-3)


def test_a_row_has_the_same_bits_alone() -> None:
    cache = random_cache(64, 4, per_head=False)
    rule = AttentionRule(0.125, None, None)
    together = run(cache, rule, 2, torch.float32)
    alone = cache.each(lambda tensor: tensor[3:4])
    assert torch.equal(run(alone, rule, 2, torch.float32)[0], together[3])


def test_the_kernels_compile_for_gpus_that_are_not_here() -> None:
    module = decode_attention.__module__
    sizes = {"NUM_KV_HEADS": 4, "GROUP": 7, "HEAD_DIM": 128, "DIMS": 128}
    runs = {"out": "*fp32", "ROWS": 16, "SLOTS": 64, "HAS_WINDOW": True}
    joins = {"partial": "*fp32", "SPLITS": 4, "HAS_SINKS": True}
    check_compiles(module, ("_attend_run", sizes | runs), ("_join_runs", sizes | joins))
