"""How far a run is. Reads files only, from anywhere.

Exit status: 0, or 2 if RUN_DIR is no run directory.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Console
from rich.live import Live
from rich.text import Text

from dynts_batch.cli.arguments import add_run_dir, command_parser
from dynts_batch.data.progress import read_progress
from dynts_batch.data.run_dir import RunDir
from dynts_batch.exit_status import EXIT_OK
from dynts_batch.report.status import render


def main(arguments: Sequence[str]) -> int:
    parser = command_parser("status", __doc__)
    add_run_dir(parser)
    parser.add_argument(
        "--watch", action="store_true", help="again and again, until it is finished"
    )
    parser.add_argument("--every", type=float, default=5.0, metavar="SECONDS")
    args = parser.parse_args(arguments)
    run_dir = RunDir(args.run_dir)
    if args.watch:
        _watch(run_dir, args.every)
    else:
        print(render(args.run_dir, read_progress(run_dir, time.time())))
    return EXIT_OK


def _watch(run_dir: RunDir, every_s: float) -> None:
    with Live(auto_refresh=False, console=Console(soft_wrap=True)) as live:
        while True:
            progress = read_progress(run_dir, time.time())
            live.update(Text(render(run_dir.path, progress)), refresh=True)
            if progress.sealed:
                return
            time.sleep(max(0.1, every_s))
