"""Packed linear layers compute what plain ones do, the same bits for a row whatever its company."""

import weakref

import pytest
import torch
from torch import nn

from dynts_batch.engine.model.packing import PackedLinear, pack_linears

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN"
)


def packed_alone(linear: nn.Linear) -> nn.Module:
    return pack_linears(nn.Sequential(linear))[0]


@pytest.mark.parametrize("bias", [False, True])
def test_a_packed_layer_equals_the_plain_one(bias: bool) -> None:
    torch.manual_seed(0)
    plain = nn.Linear(96, 160, bias=bias).requires_grad_(False)
    packed = packed_alone(plain)
    for shape in [(1, 96), (5, 96), (2, 3, 96), (1, 1, 96)]:
        inputs = torch.randn(shape)
        torch.testing.assert_close(packed(inputs), plain(inputs))


@pytest.mark.parametrize(("width_in", "width_out"), [(64, 96), (512, 512), (1408, 512), (4096, 64)])
def test_a_row_has_the_same_bits_alone_and_among_others(width_in: int, width_out: int) -> None:
    torch.manual_seed(0)
    packed = packed_alone(nn.Linear(width_in, width_out).requires_grad_(False))
    rows = torch.randn(64, width_in)
    together = packed(rows)
    for count in (1, 2, 3, 7, 16, 31, 33):
        assert torch.equal(packed(rows[:count]), together[:count])


class Attention(nn.Module):
    """Three layers that read the same input, one of them without a bias."""

    def __init__(self, width_in: int, q_width: int, kv_width: int) -> None:
        super().__init__()
        self.q_proj = nn.Linear(width_in, q_width)
        self.k_proj = nn.Linear(width_in, kv_width, bias=False)
        self.v_proj = nn.Linear(width_in, kv_width)
        self.o_proj = nn.Linear(q_width, width_in)


@pytest.mark.parametrize(
    "widths", [(128, 128, 64), (512, 512, 128), (100, 60, 20), (896, 896, 128)]
)
@pytest.mark.parametrize("num_rows", [1, 2, 16, 33])
def test_layers_that_are_one_product_have_the_bits_of_each_alone(widths, num_rows: int) -> None:
    torch.manual_seed(0)
    plain = Attention(*widths).requires_grad_(False)
    alone = {name: packed_alone(child) for name, child in plain.named_children()}
    together = pack_linears(plain)
    inputs, others = torch.randn(num_rows, 1, widths[0]), torch.randn(num_rows, 1, widths[0])
    for name in ("q_proj", "k_proj", "v_proj"):
        assert torch.equal(getattr(together, name)(inputs), alone[name](inputs))
    # In any order, again, and with other inputs in between.
    for name, rows in [
        ("v_proj", inputs),
        ("q_proj", others),
        ("v_proj", inputs),
        ("q_proj", others),
    ]:
        assert torch.equal(getattr(together, name)(rows), alone[name](rows))


def test_a_product_is_not_kept_longer_than_it_is_needed() -> None:
    attention = pack_linears(Attention(64, 64, 32).requires_grad_(False))
    inputs = torch.randn(2, 64)
    for name in ("q_proj", "k_proj", "v_proj"):
        getattr(attention, name)(inputs)
    seen = weakref.ref(inputs)
    del inputs
    assert seen() is None


def test_every_linear_layer_is_packed_and_nothing_else() -> None:
    class Scaled(nn.Linear):
        """Not a plain linear layer: what its forward does is its own business."""

    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4)), Scaled(4, 4), nn.ReLU())
    packed = pack_linears(model.requires_grad_(False))
    kinds = [type(module) for module in packed.modules() if not list(module.children())]
    assert kinds == [PackedLinear, PackedLinear, Scaled, nn.ReLU]
    half = nn.Sequential(nn.Linear(4, 4, dtype=torch.float16))
    assert type(pack_linears(half)[0]) is nn.Linear
