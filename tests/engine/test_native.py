"""The C decode attention against attention written out, on ragged rows with windows and sinks."""

import pytest
import torch

from dynts_batch.engine import native
from dynts_batch.kvcache.probs import Options, additive_mask, attention_probs

pytestmark = pytest.mark.skipif(
    not native.can_run(torch.float32, torch.device("cpu"), 16), reason="no C compiler here"
)


def random_cache(head_dim: int, group: int, per_head: bool) -> dict[str, torch.Tensor]:
    """Lanes of 70 slots, of which 1 to 70 are live; the others hold what must not be read."""
    torch.manual_seed(head_dim + group)
    rows, heads, capacity = 5, 3, 70
    last_slots = torch.tensor([0, 1, 16, 37, 69])
    stored = torch.rand(rows, heads if per_head else 1, 200).argsort(-1)[..., :capacity]
    keys, values = torch.randn(2, rows, heads, capacity, head_dim).unbind()
    dead = torch.arange(capacity) > last_slots[:, None]
    keys[dead[:, None].expand(-1, heads, -1)] = torch.nan
    values[dead[:, None].expand(-1, heads, -1)] = torch.nan
    return {
        "query": torch.randn(rows, heads * group, 1, head_dim) * 3,
        "keys": keys,
        "values": values,
        "last_slots": last_slots,
        "positions": torch.full((rows,), 200),
        "stored_positions": stored.sort(-1).values.int(),
    }


def reference(options: Options, cache: dict[str, torch.Tensor]) -> torch.Tensor:
    slot = torch.arange(cache["keys"].shape[2])
    visible = slot <= cache["last_slots"][:, None, None, None]
    if options.sliding_window is not None:
        oldest = cache["positions"] - options.sliding_window
        is_newest = slot == cache["last_slots"][:, None, None, None]
        in_window = cache["stored_positions"][:, :, None] > oldest[:, None, None, None]
        visible = visible & (in_window | is_newest)
    mask = additive_mask(visible, torch.float32)
    probs = attention_probs(cache["query"], cache["keys"].nan_to_num(), mask, options)
    output = torch.einsum("bkgts,bksd->bkgtd", probs, cache["values"].nan_to_num())
    return output.reshape(cache["query"].shape)


@pytest.mark.parametrize("head_dim", [16, 64, 96])
@pytest.mark.parametrize("group", [1, 4])
@pytest.mark.parametrize("per_head", [False, True])
@pytest.mark.parametrize("window", [None, 1, 120])
@pytest.mark.parametrize("has_sinks", [False, True])
def test_equals_attention_written_out(
    head_dim: int, group: int, per_head: bool, window: int | None, has_sinks: bool
) -> None:
    cache = random_cache(head_dim, group, per_head)
    sinks = torch.randn(3 * group) * 4 if has_sinks else None
    options = Options(head_dim**-0.5, window, sinks)
    output = native.decode_attention(**cache, options=options)
    torch.testing.assert_close(output, reference(options, cache), rtol=1e-5, atol=5e-6)


def test_a_row_has_the_same_bits_alone_and_with_other_threads() -> None:
    cache = random_cache(64, 4, per_head=False)
    options = Options(0.125, None, None)
    together = native.decode_attention(**cache, options=options)
    num_threads = torch.get_num_threads()
    try:
        for row, threads in [(0, 1), (3, 2), (4, 3)]:
            torch.set_num_threads(threads)
            alone = {name: tensor[row : row + 1] for name, tensor in cache.items()}
            output = native.decode_attention(**alone, options=options)
            assert torch.equal(output[0], together[row])
    finally:
        torch.set_num_threads(num_threads)


def test_logits_far_apart_neither_overflow_nor_vanish() -> None:
    keys = torch.tensor([[[[1000.0] * 16, [-1000.0] * 16, [999.9] * 16]]])
    values = torch.arange(3.0).view(1, 1, 3, 1).expand(1, 1, 3, 16).contiguous()
    output = native.decode_attention(
        torch.ones(1, 1, 1, 16), keys, values, torch.tensor([2]), torch.tensor([2]),
        torch.arange(3).int().view(1, 1, 3), Options(1.0, None, None),
    )  # fmt: skip
    weight = torch.tensor([16000.0, 15998.4]).softmax(0)[1]
    torch.testing.assert_close(output, (2 * weight).expand(1, 1, 1, 16), rtol=1e-3, atol=0)
