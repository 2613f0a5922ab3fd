"""The scaling of RoPE in a GGUF file is that of the model, or the file is refused."""

from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf.tensor_mapping import get_tensor_name_map
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedModel,
    Qwen2Config,
)
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from dynts_batch.engine.model.checkpoint.gguf_rope import restore_rope
from dynts_batch.errors import ConfigError

SHAPE = {
    "vocab_size": 64,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32768,
    "tie_word_embeddings": False,
}
PLAIN = {"rope_type": "default", "rope_theta": 10000.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8192}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
NAMES = {"qwen2": gguf.MODEL_ARCH.QWEN2, "llama": gguf.MODEL_ARCH.LLAMA}


def llama3_factors(config: PretrainedConfig) -> np.ndarray:
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    plain = config.rope_parameters["rope_theta"] ** -(torch.arange(0, 32, 2) / 32)
    return (plain / scaled).numpy()


def write(
    path: Path,
    arch: str,
    fill: Callable[[gguf.GGUFWriter], None],
    model: PreTrainedModel | None = None,
) -> Path:
    """A GGUF file with what `fill` adds, and with the weights of `model`."""
    writer = gguf.GGUFWriter(path, arch)
    writer.add_vocab_size(64)
    writer.add_context_length(32768)
    writer.add_block_count(2)
    writer.add_embedding_length(64)
    writer.add_feed_forward_length(64)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(32)
    fill(writer)
    if model is not None:
        names = get_tensor_name_map(NAMES[arch], 2)
        for key, tensor in model.state_dict().items():
            weight = tensor.numpy()
            if arch == "llama" and ("q_proj" in key or "k_proj" in key):
                halves = weight.reshape(2, 2, -1, *weight.shape[1:])
                weight = halves.swapaxes(1, 2).reshape(weight.shape)
            writer.add_tensor(
                names.get_name(key, (".weight", ".bias")), np.ascontiguousarray(weight)
            )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add_yarn(writer: gguf.GGUFWriter) -> None:
    writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
    writer.add_rope_scaling_factor(4.0)
    writer.add_rope_scaling_orig_ctx_len(8192)


def add_linear(writer: gguf.GGUFWriter) -> None:
    writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
    writer.add_rope_scaling_factor(8.0)


def add_none(writer: gguf.GGUFWriter) -> None:
    writer.add_rope_scaling_type(gguf.RopeScalingType.NONE)


def add_factors(factors: np.ndarray) -> Callable[[gguf.GGUFWriter], None]:
    return lambda writer: writer.add_tensor("rope_freqs.weight", factors.astype(np.float32))


LLAMA3_FACTORS = add_factors(llama3_factors(LlamaConfig(**SHAPE, rope_parameters=PLAIN | LLAMA3)))
CASES = [
    ("qwen2", add_yarn, Qwen2Config, YARN),
    ("qwen2", lambda writer: writer.add_file_type(0), Qwen2Config, {}),
    ("llama", add_linear, LlamaConfig, {"rope_type": "linear", "factor": 8.0}),
    ("llama", LLAMA3_FACTORS, LlamaConfig, LLAMA3),
    ("llama", add_factors(np.ones(16)), LlamaConfig, {}),
    # As llama.cpp reads them: no type is a linear one, and the factor has an older name.
    (
        "llama",
        lambda writer: writer.add_rope_scaling_factor(4.0),
        LlamaConfig,
        {"rope_type": "linear", "factor": 4.0},
    ),
    (
        "llama",
        lambda writer: writer.add_float32("llama.rope.scale_linear", 4.0),
        LlamaConfig,
        {"rope_type": "linear", "factor": 4.0},
    ),
    (
        "llama",
        lambda writer: (writer.add_rope_scaling_factor(4.0), add_none(writer)),
        LlamaConfig,
        {},
    ),
    ("llama", lambda writer: (LLAMA3_FACTORS(writer), add_none(writer)), LlamaConfig, LLAMA3),
    (
        "llama",
        lambda writer: (LLAMA3_FACTORS(writer), writer.add_rope_scaling_factor(1.0)),
        LlamaConfig,
        LLAMA3,
    ),
]


@pytest.mark.parametrize(("arch", "fill", "kind", "scaling"), CASES)
def test_the_configuration_has_the_scaling_that_the_file_states(
    tmp_path: Path, arch, fill, kind, scaling
) -> None:
    config = kind(**SHAPE, rope_parameters=dict(PLAIN))
    restore_rope(write(tmp_path / "model.gguf", arch, fill), config)
    assert config.rope_parameters == PLAIN | scaling


def test_only_layers_that_look_at_everything_are_scaled(tmp_path: Path) -> None:
    config = Gemma3TextConfig(**SHAPE)
    local = dict(config.rope_parameters["sliding_attention"])
    restore_rope(write(tmp_path / "model.gguf", "gemma3", add_linear), config)
    assert config.rope_parameters["sliding_attention"] == local
    assert config.rope_parameters["full_attention"]["rope_type"] == "linear"
    assert config.rope_parameters["full_attention"]["factor"] == 8


@pytest.mark.parametrize(
    ("fill", "message"),
    [
        (add_factors(np.linspace(1, 3, 16)), "rope_freqs other numbers than Llama 3.1's"),
        (add_factors(np.linspace(1, 3, 8)), "rope_freqs other numbers than Llama 3.1's"),
        (lambda w: w.add_rope_scaling_type(gguf.RopeScalingType.LONGROPE), "type longrope"),
        (lambda w: (add_yarn(w), w.add_rope_scaling_attn_factors(1.2)), "attn_factor 1.2"),
        (
            lambda w: w.add_tensor("rope_factors_long.weight", np.ones(16, np.float32)),
            "factors_long",
        ),
        (lambda w: (add_linear(w), LLAMA3_FACTORS(w)), "type linear, factor 8.0, rope_freqs too"),
    ],
)
def test_a_scaling_that_cannot_be_told_is_refused(tmp_path: Path, fill, message) -> None:
    config = LlamaConfig(**SHAPE, rope_parameters=dict(PLAIN))
    with pytest.raises(ConfigError, match=message):
        restore_rope(write(tmp_path / "model.gguf", "llama", fill), config)
    assert config.rope_parameters == PLAIN


@pytest.mark.long
@pytest.mark.parametrize(("arch", "fill", "kind", "scaling"), [CASES[0], CASES[3]])
def test_the_logits_are_those_of_the_model_in_the_file(
    tmp_path: Path, arch, fill, kind, scaling
) -> None:
    """pip install accelerate, then pytest -m long FILE."""
    pytest.importorskip("accelerate")
    config = kind(**SHAPE, rms_norm_eps=1e-6, rope_parameters=PLAIN | scaling)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    for weight in model.parameters():
        if weight.dim() == 2:
            weight.data.normal_(0, 0.2)
    write(tmp_path / "model.gguf", arch, fill, model)
    read = kind(**SHAPE, rms_norm_eps=1e-6, rope_parameters=dict(PLAIN))
    restore_rope(tmp_path / "model.gguf", read)
    found = AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="model.gguf", config=read, dtype=torch.float32
    ).eval()
    tokens = torch.randint(64, (1, 300))
    with torch.no_grad():
        expected = model(tokens).logits
        torch.testing.assert_close(found(tokens).logits, expected, atol=1e-3, rtol=0)
        plain = AutoModelForCausalLM.from_pretrained(
            tmp_path, gguf_file="model.gguf", dtype=torch.float32
        )
        assert not torch.allclose(plain.eval()(tokens).logits, expected, atol=1e-2)
