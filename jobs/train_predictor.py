"""Train an importance predictor: `python jobs/train_predictor.py LABELS OUT.safetensors [key=value ...]`.

LABELS is a folder that jobs/label.py has filled. The predictor and its metrics on held-out questions go to
OUT.safetensors, the learning curve to OUT.svg. Keys are those of `dynts_batch.training.fitting.FitConfig`.
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
    parser.add_argument("labels")
    parser.add_argument("out", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    args = parser.parse_intermixed_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    metrics = train_predictor(args.labels, args.out, load_settings(FitConfig, args.overrides))
    for name, value in metrics.notes().items():
        print(f"held-out {name}: {value}")
    print(
        f"wrote {args.out} and {args.out.with_suffix('.svg')}, measured on {metrics.num_traces} traces"
    )
    return 0


if __name__ == "__main__":
    sys.exit(exit_status_of(main))
