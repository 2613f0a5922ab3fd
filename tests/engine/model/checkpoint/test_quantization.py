"""Laws of quantised checkpoints: gpt-oss is read as plain numbers,
others by their library or not at all."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from dynts_batch.config import ModelConfig
from dynts_batch.engine.model.loader import load_model
from dynts_batch.engine.model.resolved import resolve_model
from dynts_batch.errors import ConfigError

#: E2M1's numbers by their four bits.
FP4 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])


def quantized(source: Path, folder: Path, **settings: Any) -> ModelConfig:
    shutil.copytree(source, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": settings}))
    return ModelConfig(name=str(folder), device="cpu", dtype="float32")


def packed(shape: torch.Size) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Random blocks, their scales, and the numbers that they stand for, as a weight [experts, in,
    out]."""
    experts, width_in, width_out = shape
    codes = torch.randint(16, (experts, width_out, width_in // 32, 32))
    scales = torch.randint(120, 126, (experts, width_out, width_in // 32))
    numbers = FP4[codes] * torch.exp2(scales[..., None].float() - 127)
    blocks = codes[..., 0::2] | codes[..., 1::2] << 4
    plain = numbers.reshape(experts, width_out, width_in).mT.contiguous()
    return blocks.to(torch.uint8), scales.to(torch.uint8), plain


def test_gpt_oss_is_read_from_its_mxfp4_files_as_plain_numbers(
    tiny_model_dirs: dict[str, Path], tmp_path: Path
) -> None:
    """Every gpt-oss on the hub is published so, and six workers died of an ImportError."""
    model = quantized(tiny_model_dirs["gpt_oss"], tmp_path / "model", quant_method="mxfp4")
    file = tmp_path / "model" / "model.safetensors"
    weights, expected = load_file(file), {}
    torch.manual_seed(0)
    for key in [key for key in weights if key.endswith(("gate_up_proj", "down_proj"))]:
        blocks, scales, expected[key] = packed(weights.pop(key).shape)
        weights |= {f"{key}_blocks": blocks, f"{key}_scales": scales}
    save_file(weights, file, metadata={"format": "pt"})
    plain = tmp_path / "plain"
    shutil.copytree(tiny_model_dirs["gpt_oss"], plain)
    kept = {key: weights[key] for key in weights if not key.endswith(("_blocks", "_scales"))}
    save_file(kept | expected, plain / "model.safetensors", metadata={"format": "pt"})
    as_plain = ModelConfig(name=str(plain), device="cpu", dtype="float32")
    torch.testing.assert_close(_logits(model), _logits(as_plain))


def _logits(config: ModelConfig) -> torch.Tensor:
    loaded = load_model(resolve_model(config))
    assert loaded.decoder.dtype == torch.float32
    loaded.decoder.set_attn_implementation("eager")
    states = loaded.decoder(input_ids=torch.arange(9)[None], use_cache=False).last_hidden_state
    return loaded.head(states)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"quant_method": "gptq", "bits": 4},
            "quantised with gptq, .* not installed: .*pip install",
        ),
        ({"quant_method": "awq", "bits": 4}, "quantised with awq, .* not installed: .*pip install"),
        (
            {"quant_method": "compressed-tensors"},
            "compressed-tensors, .* not installed: .*pip install",
        ),
        ({"load_in_4bit": True}, "quantised with bitsandbytes"),
        ({"quant_method": "zebra"}, "quant_method 'zebra'. Choices: aqlm, "),
    ],
)
def test_what_reads_a_quantised_checkpoint_is_named_where_it_is_not_installed(
    settings: dict[str, Any], message: str, tiny_model_dirs: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve_model(quantized(tiny_model_dirs["llama"], tmp_path / "model", **settings))


def test_a_quantised_checkpoint_is_not_rounded_once_more(
    tiny_model_dirs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its layers are its library's own. They stayed as they were, and the row's model was named
    int8 nonetheless. What is read as plain numbers is rounded as they are."""
    monkeypatch.setattr("dynts_batch.engine.model.resolved.check_int8", lambda _: None)
    for method in ("compressed-tensors", "gptq", "fp8"):
        made = quantized(tiny_model_dirs["llama"], tmp_path / method, quant_method=method)
        message = f"model.weights must be null .*, got int8 for .*, whose .* '{method}'$"
        with pytest.raises(ConfigError, match=message):
            resolve_model(replace(made, weights="int8"))
    made = quantized(tiny_model_dirs["gpt_oss"], tmp_path / "mxfp4", quant_method="mxfp4")
    assert resolve_model(replace(made, weights="int8")).identity["weights"] == "int8"
