"""What did each right answer cost?

Prints the figures of the runs side by side. With --html it also writes them, with charts and
traces, as one file that opens in any browser without a network; --open shows it. Reads run
directories only, finished or not. Exit status: 0, or 2 if one of them is unusable.
"""

from __future__ import annotations

import webbrowser
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from dynts_batch.cli.arguments import command_parser
from dynts_batch.errors import InputError
from dynts_batch.exit_status import EXIT_OK
from dynts_batch.report.measures import measure
from dynts_batch.report.run_rows import read_run
from dynts_batch.report.tables import show_report

_PAGE = "report.html"


def main(arguments: Sequence[str]) -> int:
    parser = command_parser("report", __doc__)
    parser.add_argument(
        "run_dirs", metavar="RUN_DIR", nargs="+", help="folder or URI, as in run.dir"
    )
    parser.add_argument("--html", metavar="OUT.html", type=Path, help="write the page to this file")
    parser.add_argument(
        "--open",
        action="store_true",
        help=f"show the page in a browser; default file: RUN_DIR/{_PAGE} of one local run, else"
        f" {_PAGE} here",
    )
    parser.add_argument(
        "--picture",
        metavar="OUT.svg",
        type=Path,
        help="write what a right answer costs as a picture",
    )
    args = parser.parse_intermixed_args(arguments)
    html = args.html or (_default_page(args.run_dirs) if args.open else None)
    status = _report(args.run_dirs, html, args.picture)
    if html is not None and args.open and not webbrowser.open(html.resolve().as_uri()):
        print(f"no browser could be started here: open {html.resolve()} in one")
    return status


def _default_page(run_dirs: list[str]) -> Path:
    """Beside the rows, so that the pages of two runs never replace each other, if that is one place
    on this machine."""
    is_one = len(run_dirs) == 1 and "://" not in run_dirs[0]
    return Path(run_dirs[0], _PAGE) if is_one else Path(_PAGE)


def _report(run_dirs: list[str], html: Path | None, picture: Path | None) -> int:
    runs = measure([read_run(path) for path in run_dirs])
    show_report(runs, Console())
    # Imported late: matplotlib is slow, and the terminal does not need it.
    if html is not None:
        from dynts_batch.report.page.page import render_page

        _write(html, render_page(runs))
    if picture is not None:
        from dynts_batch.report.charts.picture import render_picture

        _write(picture, render_picture(runs))
    return EXIT_OK


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", errors="replace")
    except OSError as error:
        raise InputError(f"cannot write {path}: {error}") from None
    print(f"wrote {path.resolve()} ({len(text) / 1e6:.1f} MB)")
