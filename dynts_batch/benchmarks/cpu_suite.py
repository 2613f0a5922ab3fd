"""Every figure of RESULTS.md that an idle CPU gives, in one command: a quarter of an hour, 2 cores.

    python -m dynts_batch.benchmarks.cpu_suite [--at-once 2] [--kvpress-python PYTHON]

Each benchmark has one thread. `--at-once` says how many run at a time; it should be at most the
number of idle cores. The comparison with kvpress needs an interpreter that has it, else it is left
out.
"""

import argparse
import os
import sys

from dynts_batch.benchmarks.suite import run_checks

BENCH = ("-m", "dynts_batch", "bench")
#: The size of the embedded model, whose lengths `--mode ragged` uses.
EMBEDDED = [
    "hidden_size=128", "intermediate_size=384", "num_layers=4", "num_heads=4", "vocab_size=714",
    "budget=384", "window_size=96",
]  # fmt: skip
#: What each check shows, and its command. The longest come first.
CHECKS = {
    "4,096 new tokens": [
        *BENCH, "--contenders", "hf-generate,dynts", "--rounds", "1", "max_new_tokens=4096",
    ],
    "step time at position 32k": [
        *BENCH, "--mode", "growth", "--contenders", "dynts", "batch_size=4", "max_new_tokens=32768",
    ],
    "equal KV memory, 20 requests of 2,048 new tokens": [
        *BENCH, "--mode", "equal-memory", "--contenders", "hf-generate,dynts", "--rounds", "1",
        "kv_gib=0.06",
    ],
    "1,024 new tokens": [
        *BENCH, "--contenders", "hf-generate,hf-static,dynts,window", "--rounds", "2",
        "max_new_tokens=1024",
    ],
    "the lengths of real traces, 200 problems": [
        *BENCH, "--mode", "ragged", "--contenders", "hf-generate,dynts", "--rounds", "1",
        "num_requests=200", "max_new_tokens=1500", *EMBEDDED,
    ],
    "transformers' continuous batching, 1,024 new tokens": [
        *BENCH, "--contenders", "hf-continuous,dynts", "--rounds", "1", "max_new_tokens=1024",
    ],
    "a step beside its own products and attention": [
        *BENCH, "--mode", "roofline", "--contenders", "dynts",
    ],
    "where a step's time goes": [
        *BENCH, "--mode", "breakdown", "--contenders", "dynts,window", "max_new_tokens=1000",
    ],
}  # fmt: skip
KVPRESS = "kvpress at the same kept size, 1,024 new tokens"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--at-once", type=int, default=2)
    parser.add_argument("--kvpress-python")
    args = parser.parse_args()
    checks = dict(CHECKS)
    if args.kvpress_python is not None:
        checks[KVPRESS] = [
            *BENCH, "--contenders", "kvpress,dynts,window", "--rounds", "2", "max_new_tokens=1024",
            "--python", f"kvpress={args.kvpress_python}",
        ]  # fmt: skip
    os.environ["OMP_NUM_THREADS"] = "1"
    return run_checks(checks, args.at_once)


if __name__ == "__main__":
    sys.exit(main())
