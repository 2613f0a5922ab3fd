"""Train the embedded reasoning model.

Keys are those of `dynts_batch.lab.trainer.TrainingConfig`. The same command again resumes from the
last checkpoint. At the end the model answers fresh problems greedily, and its accuracy is printed.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from dynts_batch.cli.arguments import add_overrides, command_parser
from dynts_batch.config_file import load_settings
from dynts_batch.exit_status import EXIT_OK
from dynts_batch.lab.evaluation import greedy_accuracy
from dynts_batch.lab.trainer import Trainer, TrainingConfig


def main(arguments: Sequence[str]) -> int:
    parser = command_parser("train-reasoner", __doc__)
    parser.add_argument("out_dir", metavar="OUT_DIR", type=Path)
    add_overrides(parser, "seed=1")
    args = parser.parse_intermixed_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    config = load_settings(TrainingConfig, args.overrides)
    Trainer(args.out_dir, config).run()
    for difficulty, (num_correct, num_problems) in greedy_accuracy(args.out_dir).items():
        print(f"{difficulty}: {num_correct} of {num_problems} fresh problems right")
    return EXIT_OK
