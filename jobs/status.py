"""How far a run is: `python jobs/status.py RUN_DIR [--watch]`. Reads files only, from anywhere.

Exit status: 0, or 2 if RUN_DIR is no run directory.
"""

import argparse
import sys
import time

from rich.console import Console
from rich.live import Live
from rich.text import Text

from dynts_batch.data.progress import read_progress
from dynts_batch.data.run_dir import RunDir
from dynts_batch.exit_status import exit_status_of
from dynts_batch.report.status import render


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run_dir", metavar="RUN_DIR", help="folder or URI, as in run.dir")
    parser.add_argument(
        "--watch", action="store_true", help="again and again, until it is finished"
    )
    parser.add_argument("--every", type=float, default=5.0, metavar="SECONDS")
    args = parser.parse_args()
    run_dir = RunDir(args.run_dir)
    if not args.watch:
        print(render(args.run_dir, read_progress(run_dir, time.time())))
        return 0
    with Live(auto_refresh=False, console=Console(soft_wrap=True)) as live:
        while True:
            progress = read_progress(run_dir, time.time())
            live.update(Text(render(args.run_dir, progress)), refresh=True)
            if progress.sealed:
                return 0
            time.sleep(max(0.1, args.every))


if __name__ == "__main__":
    sys.exit(exit_status_of(main))
