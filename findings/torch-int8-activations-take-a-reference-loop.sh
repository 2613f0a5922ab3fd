#!/usr/bin/env bash
# torch 2.13.0 (CPU build) with the oneDNN it ships, on x86 with AVX-512 VNNI.
#
# Guess: torch.ops.onednn.qlinear_pointwise takes int8 or uint8 activations. oneDNN has VNNI kernels
# for both. So int8 with zero point 0 is as fast as the same numbers as uint8 with zero point 128.
# Behaviour: the results are the same bits. int8 activations are 100 to 1,000 times as slow, and
# nothing says so: oneDNN runs its reference loop. qlinear_prepack lays the weights out with a
# compensation for unsigned inputs, and no fast kernel takes signed ones with it.
# Output seen:
#   the same results: True
#   int8 takes more than 20 times as long: True
#   int8 activations: ref_int8:any
#   uint8 activations: brg_matmul:avx512_core_vnni
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q torch==2.13.0
cat > "$folder/try.py" <<'EOF'
import sys
import time

import torch

if not torch.cpu.get_capabilities().get("avx512_vnni", False):
    print("no AVX-512 VNNI here: nothing to see")
    sys.exit(0)
torch.manual_seed(0)
torch.set_num_threads(1)
rows, width_in, width_out = 32, 256, 128
weight = torch.randint(-127, 128, (width_out, width_in), dtype=torch.int8)
scales, zeros = torch.ones(width_out), torch.zeros(width_out, dtype=torch.int32)
packed = torch.ops.onednn.qlinear_prepack(weight, [rows, width_in])
signed = torch.randint(-127, 128, (rows, width_in), dtype=torch.int8)
unsigned = (signed.to(torch.int16) + 128).to(torch.uint8)


def product(codes, zero_point):
    return torch.ops.onednn.qlinear_pointwise(
        codes, 1.0, zero_point, packed, scales, zeros, None, 1.0, 0, torch.float32, "none", [], ""
    )


def fastest(codes, zero_point):
    times = []
    for _ in range(5):
        started = time.perf_counter()
        product(codes, zero_point)
        times.append(time.perf_counter() - started)
    return min(times)


same = torch.equal(product(signed, 0), product(unsigned, 128))
slower = fastest(signed, 0) > 20 * fastest(unsigned, 128)
print("the same results:", same, file=sys.stderr)
print("int8 takes more than 20 times as long:", slower, file=sys.stderr)
sys.exit(0 if same and slower else 1)
EOF
ONEDNN_VERBOSE=1 ONEDNN_MAX_CPU_ISA=AVX512_CORE_VNNI \
    "$folder/env/bin/python" "$folder/try.py" > "$folder/verbose.txt"
if grep -q "nothing to see" "$folder/verbose.txt"; then cat "$folder/verbose.txt"; exit 0; fi
echo "int8 activations: $(grep -m1 'matmul.*src:s8' "$folder/verbose.txt" | grep -o 'ref_int8:any')"
echo "uint8 activations: $(grep -m1 'matmul.*src:u8' "$folder/verbose.txt" \
    | grep -o 'brg_matmul:avx512_core_vnni')"
