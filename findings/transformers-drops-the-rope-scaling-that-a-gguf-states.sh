#!/usr/bin/env bash
# transformers 5.24.0, gguf 0.19.0, torch 2.13.0 on a CPU, Python 3.11.
#
# A tiny random Qwen2 with YaRN, as a float32 GGUF with the keys qwen2.rope.scaling.* that llama.cpp
# writes and reads, and a tiny Llama with the tensor rope_freqs.weight, in which the files of Llama
# 3.1 to 3.3 hold their scaling. Both are loaded by from_pretrained(gguf_file=...).
#
# Guess: a loaded model is the model in the file; what cannot be read of a GGUF is refused, or
# warned of.
# Behaviour: the scaling is dropped without a warning, and the configuration says rope_type
# "default". The logits are those of the same weights without scaling, within the original context
# too. Configurations of Qwen3 and Gemma 3 files lose it in the same way.
# Output seen:
#   qwen2: rope_type default, logits of the model in the file: False, of it without YaRN: True
#   llama: rope_type default, logits of the model in the file: False, of it without scaling: True
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q transformers==5.24.0 torch==2.13.0 gguf==0.19.0 \
    accelerate==1.15.0
"$folder/venv/bin/python" - "$folder" 2>/dev/null > "$folder/out" <<'PYTHON'
import sys

import gguf
import numpy as np
import torch
from gguf.tensor_mapping import get_tensor_name_map
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config

folder = sys.argv[1]
SHAPE = dict(
    vocab_size=64,
    hidden_size=64,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=2,
    max_position_embeddings=4096,
    tie_word_embeddings=False,
)
YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=1024)
LLAMA3 = dict(
    rope_type="llama3",
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=1024,
)


def permuted(weight, heads):
    """The order of the rows of a Llama's queries and keys in a GGUF."""
    halves = weight.reshape(heads, 2, -1, *weight.shape[1:])
    return halves.swapaxes(1, 2).reshape(weight.shape)


def write(model, path, arch, name):
    config, names = model.config, get_tensor_name_map(arch, model.config.num_hidden_layers)
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[arch])
    writer.add_name(name)
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    if arch == gguf.MODEL_ARCH.QWEN2:
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(YARN["factor"])
        writer.add_rope_scaling_orig_ctx_len(YARN["original_max_position_embeddings"])
    else:
        scaled = model.model.rotary_emb.inv_freq.double()
        plain = config.rope_parameters["rope_theta"] ** -(torch.arange(0, 32, 2).double() / 32)
        writer.add_tensor("rope_freqs.weight", (plain / scaled).float().numpy())
    for key, tensor in model.state_dict().items():
        weight = tensor.numpy()
        if arch == gguf.MODEL_ARCH.LLAMA and ("q_proj" in key or "k_proj" in key):
            weight = permuted(weight, 2)
        writer.add_tensor(names.get_name(key, (".weight", ".bias")), np.ascontiguousarray(weight))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def logits(model):
    with torch.no_grad():
        return model.eval()(tokens).logits


torch.manual_seed(0)
tokens = torch.randint(64, (1, 300))
for arch, kind, scaling, word in [
    (gguf.MODEL_ARCH.QWEN2, Qwen2Config, YARN, "YaRN"),
    (gguf.MODEL_ARCH.LLAMA, LlamaConfig, LLAMA3, "scaling"),
]:
    config = kind(**SHAPE, rope_parameters=dict(rope_theta=10000.0, **scaling))
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    for weight in model.parameters():
        if weight.dim() == 2:
            weight.data.normal_(0, 0.2)
    plain = kind(**SHAPE, rope_parameters=dict(rope_theta=10000.0, rope_type="default"))
    unscaled = AutoModelForCausalLM.from_config(plain, dtype=torch.float32)
    unscaled.load_state_dict(model.state_dict())
    name = gguf.MODEL_ARCH_NAMES[arch]
    write(model, f"{folder}/{name}.gguf", arch, name)
    read = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=f"{name}.gguf", dtype=torch.float32
    )
    found = logits(read)
    print(
        f"{name}: rope_type {read.config.rope_parameters['rope_type']},"
        f" logits of the model in the file: {torch.allclose(found, logits(model), atol=1e-3)},"
        f" of it without {word}: {torch.allclose(found, logits(unscaled), atol=1e-3)}",
    )
PYTHON
cat "$folder/out"
grep -q "^qwen2: rope_type default, .* file: False, of it without YaRN: True$" "$folder/out"
grep -q "^llama: rope_type default, .* file: False, of it without scaling: True$" "$folder/out"
