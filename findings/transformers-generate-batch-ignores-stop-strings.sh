#!/usr/bin/env bash
# transformers 5.24.0, torch 2.13.0 on a CPU, Python 3.11.
#
# Guess: generate_batch (continuous batching) takes a GenerationConfig as generate does. It stops at
# its stop_strings, or says that it cannot: generate refuses them without a tokenizer, and of a
# logits processor that it does not know generate_batch warns.
# Behaviour: stop_strings are passed over without a word, and every request runs to max_new_tokens.
# So few-shot prompts, which end an answer by "Q:" or by an empty line, get the model's next made-up
# questions, a grader that reads the last number reads theirs, and tokens and time are those of the
# longest completion. eos_token_id is honoured.
# Output seen:
#   no stop: generate 20 tokens, generate_batch 20, the same: True
#   eos_token_id: generate 6 tokens, generate_batch 6, the same: True
#   stop_strings: generate 6 tokens, generate_batch 20, the same: False
#   warnings that name stop strings: 0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q transformers==5.24.0 torch==2.13.0 accelerate==1.15.0
"$folder/venv/bin/python" - > "$folder/out" 2> "$folder/log" <<'PYTHON'
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

letters = sorted(pre_tokenizers.ByteLevel.alphabet())[:64]
inner = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
inner.decoder = decoders.ByteLevel()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner)

torch.manual_seed(0)
config = LlamaConfig(
    vocab_size=64,
    hidden_size=64,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    bos_token_id=None,
    eos_token_id=None,
)
model = LlamaForCausalLM(config).eval()
for weight in model.parameters():
    if weight.dim() == 2:
        weight.data.normal_(0, 0.2)
prompt = list(range(3, 20))


def settings(**options):
    return GenerationConfig(do_sample=False, max_new_tokens=20, pad_token_id=0, **options)


def one(config):
    ids = torch.tensor([prompt])
    mask = torch.ones_like(ids)
    output = model.generate(
        ids, attention_mask=mask, generation_config=config, tokenizer=tokenizer
    )
    return output[0, len(prompt) :].tolist()


def batch(config):
    outputs = model.generate_batch([prompt], generation_config=config, progress_bar=False)
    return next(iter(outputs.values())).generated_tokens


plain = one(settings())
end = plain[5]
unused = min(set(range(1, 64)) - set(plain))
for name, options in [
    ("no stop", dict(eos_token_id=unused)),
    ("eos_token_id", dict(eos_token_id=end)),
    ("stop_strings", dict(eos_token_id=unused, stop_strings=[tokenizer.decode([end])])),
]:
    a, b = one(settings(**options)), batch(settings(**options))
    print(f"{name}: generate {len(a)} tokens, generate_batch {len(b)}, the same: {a == b}")
PYTHON
named=$(grep -ci "stop.string" "$folder/log" || true)
echo "warnings that name stop strings: $named" >> "$folder/out"
cat "$folder/out"
grep -q "^no stop: generate 20 tokens, generate_batch 20, the same: True$" "$folder/out"
grep -q "^eos_token_id: generate 6 tokens, generate_batch 6, the same: True$" "$folder/out"
grep -q "^stop_strings: generate 6 tokens, generate_batch 20, the same: False$" "$folder/out"
grep -q "^warnings that name stop strings: 0$" "$folder/out"
