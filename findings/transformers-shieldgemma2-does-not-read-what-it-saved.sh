#!/usr/bin/env bash
# transformers 5.24.0, torch 2.13.0 on a CPU, Python 3.11.
#
# Guess: what an auto class makes of a configuration and saves, the same auto class reads back
# whole.
# Behaviour: AutoModelForImageTextToText makes a Gemma3ForConditionalGeneration of a
# ShieldGemma2Config too, saves it, and reads it back with every text weight random: names are
# renamed by the type of the configuration, as for ShieldGemma2's own class. Only a table in the log
# says so. With Gemma3Config nothing is lost.
# Output seen:
#   Gemma3Config Gemma3ForConditionalGeneration missing 0 unexpected 0
#   ShieldGemma2Config Gemma3ForConditionalGeneration missing 16 unexpected 15
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q transformers==5.24.0 torch==2.13.0
cd "$folder"
venv/bin/python - 2>/dev/null <<'PYTHON'
from transformers import (
    AutoModelForImageTextToText, Gemma3Config, Gemma3TextConfig, ShieldGemma2Config,
    SiglipVisionConfig,
)

small = {
    "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
}
text = Gemma3TextConfig(vocab_size=128, num_key_value_heads=1, head_dim=16, **small)
vision = SiglipVisionConfig(image_size=28, patch_size=14, **small)
missing = {}
for kind in (Gemma3Config, ShieldGemma2Config):
    config = kind(text_config=text, vision_config=vision, mm_tokens_per_image=4)
    model = AutoModelForImageTextToText.from_config(config)
    model.save_pretrained("saved")
    _, found = AutoModelForImageTextToText.from_pretrained("saved", output_loading_info=True)
    missing[kind.__name__] = len(found["missing_keys"])
    names = kind.__name__, type(model).__name__
    print(*names, "missing", missing[kind.__name__], "unexpected", len(found["unexpected_keys"]))
assert missing["Gemma3Config"] == 0
assert missing["ShieldGemma2Config"] > 0, "it reads back what it saved now"
PYTHON
