"""What a run will take, before it is paid for: `python jobs/plan.py CONFIG [--rows N] [key=value ...]`.

Does a random sample of the run's rows on one worker and prints tokens, hours, dollars and kWh of the whole with 95% intervals,
how many rows fit the KV arena, and whether KV memory is the limit at all. A sample that fills the batch less than the run
will gives bounds for hours and dollars instead. It is kept beside the run directory, so that planning again is free. Exit
status as jobs/reason.py.
"""

import argparse
import sys

from dynts_batch.exit_status import exit_status_of
from dynts_batch.runner.forecast import forecast


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", metavar="CONFIG", help="YAML file, see configs/")
    parser.add_argument("--rows", type=int, default=64, help="size of the sample (default: 64)")
    parser.add_argument("overrides", metavar="key=value", nargs="*", help="e.g. policy.budget=512")
    args = parser.parse_intermixed_args()
    return forecast(args.config, args.overrides, num_rows=args.rows)


if __name__ == "__main__":
    sys.exit(exit_status_of(main))
