#!/usr/bin/env bash
# torch 2.13.0 (oneDNN), Python 3.11. On any x86 CPU with AVX2: ONEDNN_MAX_CPU_ISA makes it one
# that has nothing newer, as many laptops, and AMD's servers before 2022.
#
# Guess: the operation that torch.compile puts in for int8 linear layers multiplies whole numbers
# exactly on every CPU that it accepts, only more slowly on an older one.
# Behaviour: with AVX2 and no VNNI, pairs of products are added in 16 bits, which stop at 32,767. No
# error and no warning; a row of large codes comes out at half its size. Codes below 128 are safe.
# Output seen:
#   AVX2:        1048544.0  (= 32 pairs of 32,767)
#   small codes: 1032256.0 of 1032256
#   exact:       2072640
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy
export ONEDNN_MAX_CPU_ISA=AVX2
"$folder/venv/bin/python" - <<'PYTHON'
import torch

WIDTH, CHANNELS, ROWS = 64, 32, 4


def product(code: int) -> float:
    """Of rows of uint8 `code` and weights of 127, no zero-points, all scales 1."""
    rows = torch.full((ROWS, WIDTH), code, dtype=torch.uint8)
    weights = torch.full((CHANNELS, WIDTH), 127, dtype=torch.int8)
    packed = torch.ops.onednn.qlinear_prepack(weights, None)
    ones, zeros = torch.ones(CHANNELS), torch.zeros(CHANNELS, dtype=torch.int32)
    out = torch.ops.onednn.qlinear_pointwise(
        rows, 1.0, 0, packed, ones, zeros, None, 1.0, 0, torch.float32, "none", [], ""
    )
    return out[0, 0].item()


large, small, exact = product(255), product(127), 255 * 127 * WIDTH
print("AVX2:       ", large)
print("small codes:", small, "of", 127 * 127 * WIDTH)
print("exact:      ", exact)
assert small == 127 * 127 * WIDTH
assert large == 32_767 * WIDTH / 2, "pairs no longer stop at 32,767"
PYTHON
