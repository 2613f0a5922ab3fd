#!/usr/bin/env bash
# transformers 5.24.0, torch 2.13.0 (a build for CPUs), Python 3.11.
#
# Guess: torch loads its compiler when something is compiled, so a program that compiles nothing and
# has no GPU does not pay for it when it imports a model's class.
# Behaviour: any model's class brings it. The integration of DeepGEMM, whose kernels need CUDA,
# marks functions by torch._dynamo's decorators, and modeling_utils imports it on every machine:
# 1.5 s of each process that starts on a core of an AMD EPYC (Zen 3).
# Output seen:
#   after torch and transformers: torch._dynamo is not loaded
#   after a model's class: it is, with 281 modules of torch._dynamo and torch.distributed
#   by transformers.integrations.deepgemm
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.24.0
"$folder/venv/bin/python" - 2>/dev/null <<'PYTHON'
import sys

import torch
import transformers

COMPILER = ("torch._dynamo", "torch.distributed")
before = set(sys.modules)
assert "torch._dynamo" not in before, "torch or transformers alone loads it now"
print("after torch and transformers: torch._dynamo is not loaded")


class Watch:
    """Tells who asks for torch._dynamo first."""

    asked_by = None

    def find_spec(self, name, path=None, target=None):
        if name == "torch._dynamo" and Watch.asked_by is None:
            frame = sys._getframe(1)
            while frame and not frame.f_globals.get("__name__", "").startswith("transformers."):
                frame = frame.f_back
            Watch.asked_by = frame and frame.f_globals["__name__"]


sys.meta_path.insert(0, Watch())
from transformers import PreTrainedModel

new = [name for name in sys.modules if name.startswith(COMPILER) and name not in before]
assert "torch._dynamo" in sys.modules, "a model's class does not load the compiler any more"
print(f"after a model's class: it is, with {len(new)} modules of {' and '.join(COMPILER)}")
print("by", Watch.asked_by)
assert Watch.asked_by == "transformers.integrations.deepgemm"
PYTHON
