"""Write the rows of a run, in the order of its input, to a new folder or to the Hugging Face hub.

dynts-batch export RUN_DIR OUT                          Parquet files of about 256 MB
dynts-batch export RUN_DIR OUT --format jsonl           JSON Lines; bytes as base64
dynts-batch export RUN_DIR OUT --format openai          response lines of OpenAI's batch API
dynts-batch export RUN_DIR OUT --format datasets        for datasets.load_from_disk
dynts-batch export RUN_DIR ORG/NAME --format hub        to the hub, private unless --public
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from dynts_batch.cli.arguments import add_run_dir, command_parser
from dynts_batch.data.export import FORMATS, export
from dynts_batch.data.run_dir import RunDir
from dynts_batch.errors import ConfigError
from dynts_batch.exit_status import EXIT_OK


def main(arguments: Sequence[str]) -> int:
    parser = command_parser("export", __doc__)
    add_run_dir(parser)
    parser.add_argument("out", metavar="OUT", help="folder or URI; for the hub ORG/NAME")
    parser.add_argument("--format", choices=FORMATS, default="parquet")
    parser.add_argument("--file-mb", type=float, default=256, help="size of a file, roughly")
    parser.add_argument("--columns", help="those to write, with commas between; default all")
    parser.add_argument("--partial", action="store_true", help="the finished shards of a run")
    parser.add_argument("--public", action="store_true", help="on the hub: for everybody to see")
    args = parser.parse_args(arguments)
    if not 0 < args.file_mb < math.inf:
        raise ConfigError(f"--file-mb must be above 0 and finite, got {args.file_mb:g}")
    if args.columns and args.format == "openai":
        raise ConfigError("--columns has no effect on the format openai: leave it out")
    num_rows = export(
        RunDir(args.run_dir),
        args.out,
        args.format,
        file_bytes=int(args.file_mb * 1e6),
        columns=args.columns.split(",") if args.columns else None,
        is_partial=args.partial,
        is_private=not args.public,
    )
    print(f"wrote {num_rows:,} rows to {args.out}")
    return EXIT_OK
