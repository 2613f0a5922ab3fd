"""Label a run's traces: `python jobs/label.py RUN_DIR [--out DIR] [key=value ...]`.

RUN_DIR is a finished, graded run of the model with policy `full`. Its correct traces, one a question, are labelled with
the attention that each thinking token receives from the answer, into RUN_DIR/labels. Keys are those of
`dynts_batch.training.labeller.LabelSettings`; workers are the run's. The same command again resumes.
"""

import argparse
import sys

from dynts_batch.exit_status import exit_status_of
from dynts_batch.runner.label import label


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run_dir", metavar="RUN_DIR")
    parser.add_argument("--out", metavar="DIR", help="default: RUN_DIR/labels")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    args = parser.parse_intermixed_args()
    return label(args.run_dir, args.out, args.overrides)


if __name__ == "__main__":
    sys.exit(exit_status_of(main, hint="The same command goes on from there."))
