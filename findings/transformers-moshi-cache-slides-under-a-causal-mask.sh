#!/usr/bin/env bash
# transformers 5.24.0, torch 2.13.0 on a CPU, Python 3.11.
#
# Guess: greedy generate in float32 writes the same tokens with a KV cache and without one: the
# cache only saves work.
# Behaviour: MoshiForCausalLM's attention is causal over all tokens, but generate makes its cache by
# config.sliding_window, so that older keys are gone. From sliding_window tokens on (3,000 by
# default) the cached model reads another text.
# Output seen (before it the tokens, which part at the second one):
#   with a cache = without: False; with a window wider than the text: True
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q transformers==5.24.0 torch==2.13.0
"$folder/venv/bin/python" - <<'PYTHON'
import torch
import transformers
from transformers import MoshiConfig, MoshiForCausalLM

transformers.logging.set_verbosity_error()


def is_same(window):
    torch.manual_seed(0)
    config = MoshiConfig(
        vocab_size=500, hidden_size=64, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2,
        ffn_dim=96, sliding_window=window, max_position_embeddings=512,
        bos_token_id=1, eos_token_id=None, pad_token_id=0,
    )
    model = MoshiForCausalLM(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 0, 0.2)
    prompt = torch.arange(10, 50)[None]
    settings = {"max_new_tokens": 24, "do_sample": False}
    cached, plain = (
        model.generate(prompt, use_cache=use_cache, **settings)[0, 40:].tolist()
        for use_cache in (True, False)
    )
    print(window, cached, plain)
    return cached == plain


narrow, wide = is_same(24), is_same(400)
print(f"with a cache = without: {narrow}; with a window wider than the text: {wide}")
assert not narrow, "cache and attention agree now"
assert wide
PYTHON
