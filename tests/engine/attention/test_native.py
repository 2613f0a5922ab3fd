"""The C decode attention against attention written out, on ragged rows with windows and sinks."""

import pytest
import torch
from decode_cases import NUM_KV_HEADS, random_cache, written_out

from dynts_batch.engine.attention import native as native_attention
from dynts_batch.engine.attention.decode_query import DecodeQuery
from dynts_batch.kvcache.layer_states import AttentionRule
from dynts_batch.kvcache.native import can_run

pytestmark = pytest.mark.skipif(
    not can_run(native_attention.SOURCE, torch.float32, torch.device("cpu"), 16),
    reason="no C compiler here",
)


@pytest.mark.parametrize("head_dim", [16, 64, 96])
@pytest.mark.parametrize("group", [1, 4])
@pytest.mark.parametrize("per_head", [False, True])
@pytest.mark.parametrize("window", [None, 1, 120])
@pytest.mark.parametrize("has_sinks", [False, True])
def test_equals_attention_written_out(
    head_dim: int, group: int, per_head: bool, window: int | None, has_sinks: bool
) -> None:
    cache = random_cache(head_dim, group, per_head=per_head)
    sinks = torch.randn(NUM_KV_HEADS * group) * 4 if has_sinks else None
    rule = AttentionRule(head_dim**-0.5, window, sinks)
    output = native_attention.decode_attention(cache.asked(rule), cache.keys, cache.values)
    torch.testing.assert_close(output, written_out(cache, rule), rtol=1e-5, atol=5e-6)


@pytest.mark.parametrize("head_dim", [16, 128, 144])
@pytest.mark.parametrize(("window", "has_sinks"), [(None, False), (120, True)])
def test_of_bfloat16_it_is_that_of_the_same_numbers_in_float32_rounded_once(
    head_dim: int, window: int | None, has_sinks: bool
) -> None:
    cache = random_cache(head_dim, 3, per_head=False)
    halved = cache.each(lambda t: t.bfloat16() if t.is_floating_point() else t)
    widened = halved.each(lambda t: t.float() if t.is_floating_point() else t)
    sinks = torch.randn(NUM_KV_HEADS * 3) * 4 if has_sinks else None
    rule = AttentionRule(head_dim**-0.5, window, sinks)
    output = native_attention.decode_attention(halved.asked(rule), halved.keys, halved.values)
    expected = native_attention.decode_attention(widened.asked(rule), widened.keys, widened.values)
    assert torch.equal(output, expected.bfloat16())


def test_of_bfloat16_what_is_no_number_stays_none() -> None:
    cache = random_cache(16, 1, per_head=False)
    halved = cache.each(lambda t: t.bfloat16() if t.is_floating_point() else t)
    halved.values[0, :, 0] = torch.tensor(0x7FFF, dtype=torch.int16).view(torch.bfloat16)
    output = native_attention.decode_attention(
        halved.asked(AttentionRule(0.25, None, None)), halved.keys, halved.values
    )
    assert output[0].isnan().all()
    assert output[1:].isfinite().all()


def test_a_row_has_the_same_bits_alone_and_with_other_threads() -> None:
    cache = random_cache(64, 4, per_head=False)
    rule = AttentionRule(0.125, None, None)
    together = native_attention.decode_attention(cache.asked(rule), cache.keys, cache.values)
    num_threads = torch.get_num_threads()
    try:
        for row, threads in [(0, 1), (3, 2), (4, 3)]:
            torch.set_num_threads(threads)
            alone = cache.each(lambda tensor, row=row: tensor[row : row + 1])
            output = native_attention.decode_attention(alone.asked(rule), alone.keys, alone.values)
            assert torch.equal(output[0], together[row])
    finally:
        torch.set_num_threads(num_threads)


def test_logits_far_apart_neither_overflow_nor_vanish() -> None:
    keys = torch.tensor([[[[1000.0] * 16, [-1000.0] * 16, [999.9] * 16]]])
    values = torch.arange(3.0).view(1, 1, 3, 1).expand(1, 1, 3, 16).contiguous()
    last, stored = torch.tensor([2]), torch.arange(3).int().view(1, 1, 3)
    rule = AttentionRule(1.0, None, None)
    asked = DecodeQuery(torch.ones(1, 1, 1, 16), last, last, stored, rule)
    output = native_attention.decode_attention(asked, keys, values)
    weight = torch.tensor([16000.0, 15998.4]).softmax(0)[1]
    torch.testing.assert_close(output, (2 * weight).expand(1, 1, 1, 16), rtol=1e-3, atol=0)
