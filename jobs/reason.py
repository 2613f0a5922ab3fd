"""Answer a data set: `python jobs/reason.py CONFIG [key=value ...]`.

The same command again resumes; on a finished run it does nothing. Exit status: 0 every row is
there, 3 every row is there and some failed, 4 run.max_cost_usd or run.max_hours stopped it, 2 a
setting, the input or the run directory is unusable, 1 the run broke off, 130 or 143 it was
interrupted.
"""

import argparse
import sys

from dynts_batch.runner.reason import reason


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", metavar="CONFIG", help="YAML file, see configs/")
    parser.add_argument("overrides", metavar="key=value", nargs="*", help="e.g. policy.budget=512")
    args = parser.parse_intermixed_args()
    return reason(args.config, args.overrides)


if __name__ == "__main__":
    sys.exit(main())
