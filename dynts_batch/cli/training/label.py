"""Label a run's traces, for `dynts-batch train-predictor`.

RUN_DIR is a finished, graded run of the model with policy `full`. One correct trace per question is
labelled with the attention that each thinking token receives from the answer. Labels go to
RUN_DIR/labels. Keys are those of `dynts_batch.training.labeller.LabelSettings`; workers are the
run's. The same command again resumes.
"""

from __future__ import annotations

from collections.abc import Sequence

from dynts_batch.cli.arguments import add_overrides, add_run_dir, command_parser
from dynts_batch.runner.label import label


def main(arguments: Sequence[str]) -> int:
    parser = command_parser("label", __doc__)
    add_run_dir(parser)
    parser.add_argument("--out", metavar="DIR", help="default: RUN_DIR/labels")
    add_overrides(parser, "hidden_tokens=2048")
    args = parser.parse_intermixed_args(arguments)
    return label(args.run_dir, args.out, args.overrides)
