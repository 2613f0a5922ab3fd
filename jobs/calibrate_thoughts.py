"""Tell a model's thoughts apart: `python jobs/calibrate_thoughts.py RUN_DIR OUT.safetensors [key=value ...]`.

RUN_DIR is a finished, graded run of the model with policy `full`. How sparse attention is at the decode steps of its correct
traces says which layers tell transitions, reasoning and executions apart, and at which thresholds: they go to
OUT.safetensors, for `model.thoughts`, and the densities to OUT.svg. Keys are those of
`dynts_batch.runner.calibrate.CalibrationSettings`; workers are the run's.
"""

import argparse
import sys
from pathlib import Path

from dynts_batch.exit_status import exit_status_of
from dynts_batch.runner.calibrate import calibrate_thoughts


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run_dir", metavar="RUN_DIR")
    parser.add_argument("out", metavar="OUT.safetensors", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    args = parser.parse_intermixed_args()
    return calibrate_thoughts(args.run_dir, args.out, args.overrides)


if __name__ == "__main__":
    sys.exit(exit_status_of(main))
