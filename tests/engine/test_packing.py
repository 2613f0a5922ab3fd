"""Packed linear layers compute what plain ones do, the same bits for a row whatever its company."""

import pytest
import torch
from torch import nn

from dynts_batch.engine.packing import PackedLinear, pack_linears

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN"
)


@pytest.mark.parametrize("bias", [False, True])
def test_a_packed_layer_equals_the_plain_one(bias: bool) -> None:
    torch.manual_seed(0)
    plain = nn.Linear(96, 160, bias=bias).requires_grad_(False)
    packed = PackedLinear(plain)
    for shape in [(1, 96), (5, 96), (2, 3, 96), (1, 1, 96)]:
        inputs = torch.randn(shape)
        torch.testing.assert_close(packed(inputs), plain(inputs))


@pytest.mark.parametrize(("width_in", "width_out"), [(64, 96), (512, 512), (1408, 512), (4096, 64)])
def test_a_row_has_the_same_bits_alone_and_among_others(width_in: int, width_out: int) -> None:
    torch.manual_seed(0)
    packed = PackedLinear(nn.Linear(width_in, width_out).requires_grad_(False))
    rows = torch.randn(64, width_in)
    together = packed(rows)
    for count in (1, 2, 3, 7, 16, 31, 33):
        assert torch.equal(packed(rows[:count]), together[:count])


def test_every_linear_layer_is_packed_and_nothing_else() -> None:
    class Scaled(nn.Linear):
        """Not a plain linear layer: what its forward does is its own business."""

    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4)), Scaled(4, 4), nn.ReLU())
    packed = pack_linears(model.requires_grad_(False))
    kinds = [type(module) for module in packed.modules() if not list(module.children())]
    assert kinds == [PackedLinear, PackedLinear, Scaled, nn.ReLU]
    half = nn.Sequential(nn.Linear(4, 4, dtype=torch.float16))
    assert type(pack_linears(half)[0]) is nn.Linear
