"""Parts of a layer in C give what torch gives, and whatever is written otherwise stays."""

from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import Gemma3TextConfig, Qwen2Config
from transformers.models.gemma3.modeling_gemma3 import Gemma3MLP, Gemma3RMSNorm
from transformers.models.qwen2.modeling_qwen2 import Qwen2MLP, Qwen2RMSNorm

from dynts_batch.config import ModelConfig
from dynts_batch.engine import Engine
from dynts_batch.engine.model import fusing
from dynts_batch.engine.model.fusing import fuse_layers
from dynts_batch.engine.model.packing import pack_linears
from dynts_batch.errors import ConfigError
from dynts_batch.kvcache.native import can_run

needs_c = pytest.mark.skipif(
    not can_run(fusing.SOURCE, torch.float32, torch.device("cpu"), 16), reason="no C compiler"
)
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
#: A step of bfloat16 may be crossed by the last bit of a float32.
EXACTNESS = {torch.float32: 2e-6, torch.bfloat16: 2**-7}


@needs_c
@DTYPES
def test_a_norm_is_torchs(dtype: torch.dtype) -> None:
    """Rows of any scale, a row of zeros among them, and inputs that are not contiguous."""
    torch.manual_seed(0)
    norm = Qwen2RMSNorm(96, eps=1e-5).to(dtype).requires_grad_(False)
    norm.weight.normal_()
    numbers = (torch.randn(4, 96, 5) * torch.logspace(-4, 4, 5)).to(dtype).mT
    numbers[0] = 0
    expected = norm(numbers)
    fused = fuse_layers(norm)(numbers)
    assert "forward" in vars(norm)
    assert fused.dtype == dtype
    torch.testing.assert_close(fused, expected, rtol=EXACTNESS[dtype], atol=1e-6)


@needs_c
@DTYPES
@pytest.mark.parametrize("is_packed", [False, True])
def test_a_gated_layer_is_torchs(dtype: torch.dtype, is_packed: bool) -> None:
    torch.manual_seed(0)
    layer = Qwen2MLP(Qwen2Config(hidden_size=96, intermediate_size=208)).to(dtype)
    numbers = torch.randn(3, 5, 96).to(dtype) * 9
    expected = layer.requires_grad_(False)(numbers)
    fused = fuse_layers(pack_linears(layer) if is_packed else layer)(numbers)
    assert "forward" in vars(layer)
    torch.testing.assert_close(fused, expected, rtol=0.02, atol=EXACTNESS[dtype] * 16)


@needs_c
@DTYPES
def test_a_gate_is_torchs_from_end_to_end(dtype: torch.dtype) -> None:
    gate = torch.cat([torch.linspace(-110, 110, 4090), torch.tensor([0.0, -0.0, 1e30, -1e30])])
    gate = torch.cat([gate, torch.tensor([torch.nan, torch.inf])]).to(dtype)[None]
    up = torch.randn(gate.shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    expected = nn.functional.silu(gate) * up
    found = torch.ops.dynts_batch.gate_rows(gate, up)
    torch.testing.assert_close(found, expected, rtol=EXACTNESS[dtype], atol=1e-30, equal_nan=True)


@needs_c
def test_a_row_has_the_same_bits_whatever_its_mates() -> None:
    numbers, up = torch.randn(7, 64), torch.randn(7, 64)
    weight = torch.randn(64)
    norm, gate = torch.ops.dynts_batch.rms_norm, torch.ops.dynts_batch.gate_rows
    assert torch.equal(norm(numbers, weight, 1e-6)[3:4], norm(numbers[3:4], weight, 1e-6))
    assert torch.equal(gate(numbers, up)[3:4], gate(numbers[3:4], up[3:4]))


@needs_c
def test_a_norm_of_another_type_than_its_input_is_torchs_own() -> None:
    for own, given in ((torch.float32, torch.bfloat16), (torch.bfloat16, torch.float32)):
        norm = Qwen2RMSNorm(96).to(own).requires_grad_(False)
        numbers = torch.randn(3, 96).to(given)
        expected = norm(numbers)
        found = fuse_layers(norm)(numbers)
        assert found.dtype == expected.dtype
        assert torch.equal(found, expected)


@needs_c
def test_the_check_of_logits_runs_the_model_in_its_own_words(
    tiny_model_dirs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a fused layer that is wrong is seen."""
    found = ModelConfig(str(tiny_model_dirs["qwen2"]), device="cpu")
    loaded = Engine.load(found)
    fused = [m for m in loaded._model.decoder.modules() if "forward" in vars(m)]
    assert fused
    with fusing.plain_layers(loaded._model.decoder):
        assert not any("forward" in vars(module) for module in fused)
    assert all("forward" in vars(module) for module in fused)
    monkeypatch.setattr(fusing, "_gate_rows", lambda gate, up: gate + up)
    with pytest.raises(ConfigError, match="the engine must reproduce the logits"):
        Engine.load(found)


@needs_c
def test_hooks_and_weights_of_other_kinds_stay() -> None:
    """A quantiser's layer may have no `weight` at all."""
    hooked, quantised = (
        Qwen2MLP(Qwen2Config(hidden_size=96, intermediate_size=208)) for _ in range(2)
    )
    hooked.forward = hook = lambda numbers: numbers
    quantised.gate_proj = nn.Identity()
    fuse_layers(nn.ModuleList([hooked, quantised]))
    assert hooked.forward is hook
    assert "forward" not in vars(quantised)


def test_what_is_written_otherwise_stays() -> None:
    config = Gemma3TextConfig(hidden_size=96, intermediate_size=208)
    odd = Qwen2RMSNorm(20)
    exact_gelu = Qwen2MLP(Qwen2Config(hidden_size=96, intermediate_size=208, hidden_act="gelu"))
    model = nn.ModuleList([Gemma3RMSNorm(96), Gemma3MLP(config), odd, exact_gelu, nn.Linear(2, 2)])
    fuse_layers(model)
    assert not any("forward" in vars(module) for module in model.modules())
