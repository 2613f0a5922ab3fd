"""Accuracy under eviction on real text, every policy at the same memory, in one resumable command.

    python -m dynts_batch.benchmarks.study MODEL PROBLEMS.jsonl OUT
        [--shares 35,50,70] [--policies A,B] [key=value ...]

MODEL is a folder or a hub id. PROBLEMS has a question and its answer on each line; the first --rows
are done, greedily. input.prompt_template="$(cat FILE)" puts worked examples before each question.

Runs the full cache, then every policy and schedule at every share of what the full cache stores at
its peak, prompt included. Each has its run directory below OUT/cells.

Writes OUT/frontier.parquet and OUT/frontier.svg, and prints the table. It shows what each policy
loses against the full cache and against the best other policy, with paired 95% intervals. It also
shows what a right answer costs.
"""

import argparse
import subprocess
import sys
from pathlib import Path

POLICIES = (
    "expected", "triattention", "rkv", "random", "window", "snapkv", "h2o", "value_aware", "cur",
    "keydiff",
)  # fmt: skip
#: Every policy under its own schedule, with and without protecting the prompt; the paper's schedule
#: where it is known to matter.
VARIANTS = (
    *(f"{name}+protect_prompt={choice}" for choice in ("false", "true") for name in POLICIES),
    "rkv+keep_ratio=0.4",
    "window+keep_ratio=0.4",
)
SETTINGS = """\
model: {{name: {model}, dtype: bfloat16}}
input:
  path: {problems}
  prompt_column: question
  reference_column: answer
  limit: {rows}
  prompt_template: |-
    {{prompt}}

    Think step by step, and put your final answer within \\boxed{{}}.
sampling: {{temperature: 0.0, max_new_tokens: 512}}
policy: {{window_size: 16}}
memory: {{max_seqs: 40, max_prompt_tokens: 512}}
run: {{shard_rows: 25}}
cost: {{usd_per_gpu_hour: 0.05}}
"""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("problems", metavar="PROBLEMS", type=Path)
    parser.add_argument("out", metavar="OUT", type=Path)
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--shares", default="35,50,70", metavar="P,Q,...")
    parser.add_argument("--policies", default=",".join(VARIANTS), metavar="A,B,...")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    args = parser.parse_intermixed_args()
    settings = args.out / "study.yaml"
    args.out.mkdir(parents=True, exist_ok=True)
    settings.write_text(settings_of(args.model, args.problems, args.rows))
    command = ["-m", "dynts_batch", "frontier", str(settings), str(args.out)]
    command += ["--policies", args.policies, "--shares", args.shares, *args.overrides]
    return subprocess.run([sys.executable, *command], check=False).returncode


def settings_of(model: str, problems: Path, rows: int) -> str:
    """The configuration that all cells share, as YAML."""
    folder = Path(model)
    name = str(folder.absolute()) if folder.is_dir() else model
    return SETTINGS.format(model=name, problems=problems.absolute(), rows=rows)


if __name__ == "__main__":
    sys.exit(main())
