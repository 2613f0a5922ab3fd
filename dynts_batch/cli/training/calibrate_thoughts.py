"""Tell a model's thoughts apart, for the policy `thinkv`.

RUN_DIR is a finished, graded run of the model with policy `full`. Attention at the decode steps of
its correct traces is more or less sparse. This says which layers tell transitions, reasoning and
executions apart, and at which thresholds. They go to OUT.safetensors, for `model.thoughts`, and the
densities to OUT.svg. Keys are those of `dynts_batch.runner.calibrate.CalibrationSettings`; workers
are the run's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dynts_batch.cli.arguments import add_overrides, add_run_dir, command_parser
from dynts_batch.runner.calibrate import calibrate_thoughts


def main(arguments: Sequence[str]) -> int:
    parser = command_parser("calibrate-thoughts", __doc__)
    add_run_dir(parser)
    parser.add_argument("out", metavar="OUT.safetensors", type=Path)
    add_overrides(parser, "num_traces=50")
    args = parser.parse_intermixed_args(arguments)
    return calibrate_thoughts(args.run_dir, args.out, args.overrides)
