"""What did each right answer cost? `python jobs/report.py RUN_DIR [RUN_DIR ...] [--html OUT.html]`.

Prints the figures of the runs side by side; with --html it also writes them, with charts and traces, as one file that
opens in any browser without a network. Reads run directories only, finished or not. Exit status: 0, or 2 if one of them
is unusable.
"""

import argparse
import sys
from pathlib import Path

from rich.console import Console

from dynts_batch.exit_status import EXIT_OK, exit_status_of
from dynts_batch.report.measures import measure
from dynts_batch.report.run_rows import read_run
from dynts_batch.report.tables import show_report


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "run_dirs", metavar="RUN_DIR", nargs="+", help="folder or URI, as in run.dir"
    )
    parser.add_argument("--html", metavar="OUT.html", type=Path, help="write the page to this file")
    args = parser.parse_args()
    return exit_status_of(lambda: _report(args.run_dirs, args.html))


def _report(run_dirs: list[str], html: Path | None) -> int:
    runs = measure([read_run(path) for path in run_dirs])
    show_report(runs, Console())
    if html is not None:
        from dynts_batch.report.page import render_page  # matplotlib is slow to import

        html.parent.mkdir(parents=True, exist_ok=True)
        html.write_text(render_page(runs), encoding="utf-8", errors="replace")
        print(f"wrote {html} ({html.stat().st_size / 1e6:.1f} MB)")
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
