"""Train the embedded reasoning model: `python jobs/train_reasoner.py OUT_DIR [key=value ...]`.

Keys are those of `dynts_batch.lab.trainer.TrainingConfig`. The same command again resumes from the last checkpoint. At
the end the model answers fresh problems greedily, and its accuracy is printed.
"""

import argparse
import logging
import sys
from pathlib import Path

from dynts_batch.config_file import load_settings
from dynts_batch.exit_status import exit_status_of
from dynts_batch.lab.evaluation import greedy_accuracy
from dynts_batch.lab.trainer import Trainer, TrainingConfig


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out_dir", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    args = parser.parse_intermixed_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    config = load_settings(TrainingConfig, args.overrides)
    Trainer(args.out_dir, config).run()
    for difficulty, (num_correct, num_problems) in greedy_accuracy(args.out_dir).items():
        print(f"{difficulty}: {num_correct} of {num_problems} fresh problems right")
    return 0


if __name__ == "__main__":
    sys.exit(exit_status_of(main))
