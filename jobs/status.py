"""How far a run is: `python jobs/status.py RUN_DIR`. Reads files only, from anywhere.

Exit status: 0, or 2 if RUN_DIR is no run directory.
"""

import argparse
import sys
import time

from dynts_batch.data.progress import read_progress
from dynts_batch.data.run_dir import RunDir
from dynts_batch.exit_status import exit_status_of
from dynts_batch.report.status import render


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run_dir", metavar="RUN_DIR", help="folder or URI, as in run.dir")
    args = parser.parse_args()
    print(render(args.run_dir, read_progress(RunDir(args.run_dir), time.time())))
    return 0


if __name__ == "__main__":
    sys.exit(exit_status_of(main))
