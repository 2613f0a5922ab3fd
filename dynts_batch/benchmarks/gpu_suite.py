"""Everything that only a GPU can prove, in one command of under ten minutes.

    python -m dynts_batch.benchmarks.gpu_suite

Runs the tests that a GPU changes, then the benchmark on the shape of R1-Distill-Qwen-7B with random
bfloat16 weights. Needs a GPU with 80 GiB.
"""

import sys

import torch

from dynts_batch.benchmarks.suite import run_checks

BENCH = ("-m", "dynts_batch", "bench")
#: R1-Distill-Qwen-7B.
SHAPE = [
    "hidden_size=3584",
    "intermediate_size=18944",
    "num_layers=28",
    "num_heads=28",
    "num_kv_heads=4",
    "vocab_size=152064",
    "dtype=bfloat16",
]
#: The settings of DynTS for this model on AIME.
POLICY = ["budget=5000", "window_size=2000", "keep_ratio=0.4"]
#: What each check shows, and its command.
CHECKS = {
    "fused attention, packed stores and CUDA graphs change no token and no bit": [
        "-m", "pytest", "-q", "tests/engine", "tests/kvcache/stores/test_packed_kinds.py",
    ],
    "decode at batch 64 beside the memory roofline, plain and quantised": [
        *BENCH, "--mode", "roofline", "--contenders", "dynts,dynts+quantize=true", "batch_size=64",
        "prompt_tokens=2800", *POLICY, *SHAPE,
    ],
    "where a decode step's time goes": [
        *BENCH, "--mode", "breakdown", "--contenders", "dynts", "batch_size=64",
        "prompt_tokens=2500", "max_new_tokens=1000", "budget=3000", "window_size=200", *SHAPE,
    ],
    "step against position beside the full cache": [
        *BENCH, "--mode", "growth", "--contenders", "dynts,hf-generate", "batch_size=20",
        "prompt_tokens=256", "max_new_tokens=2000", "budget=1024", "window_size=256", *SHAPE,
    ],
    "tokens/s at the same KV memory": [
        *BENCH, "--mode", "equal-memory", "--contenders", "hf-generate,dynts",
        "--rounds", "1", "kv_gib=1", "prompt_tokens=128", "max_new_tokens=1000", "budget=512",
        "window_size=128", *SHAPE,
    ],
    "the same, quantised": [
        *BENCH, "--mode", "equal-memory", "--contenders",
        "dynts,dynts+quantize=true,dynts+quantize=int4,dynts+quantize=fp8", "--rounds", "1",
        "kv_gib=1",
        "prompt_tokens=128", "max_new_tokens=600", "budget=512", "window_size=128", *SHAPE,
    ],
}  # fmt: skip


def main() -> int:
    if not torch.cuda.is_available():
        print("error: torch sees no GPU here", file=sys.stderr)
        return 2
    print(torch.cuda.get_device_name(), torch.__version__, flush=True)
    return run_checks(CHECKS, at_once=1)


if __name__ == "__main__":
    sys.exit(main())
