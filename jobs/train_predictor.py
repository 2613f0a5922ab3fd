"""Train an importance predictor: `python jobs/train_predictor.py RUN_DIR OUT.safetensors [key=value ...]`.

RUN_DIR is a finished run of the model with policy `full`; its correct traces, one a question, are the data. Keys are
those of `dynts_batch.training.fitting.FitConfig`.
"""

import argparse
import logging
import sys
from pathlib import Path

from dynts_batch.config_file import load_settings
from dynts_batch.exit_status import exit_status_of
from dynts_batch.training.fitting import FitConfig
from dynts_batch.training.pipeline import train_predictor


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run_dir")
    parser.add_argument("out", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    metrics = train_predictor(args.run_dir, args.out, load_settings(FitConfig, args.overrides))
    for name, value in metrics.notes().items():
        print(f"held-out {name}: {value}")
    print(f"wrote {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(exit_status_of(main))
