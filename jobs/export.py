"""Write the rows of a run, in the order of its input, to a new folder or to the Hugging Face hub.

python jobs/export.py RUN_DIR OUT                          Parquet files of about 256 MB
python jobs/export.py RUN_DIR OUT --format jsonl           JSON Lines; bytes as base64
python jobs/export.py RUN_DIR OUT --format openai          response lines of OpenAI's batch API
python jobs/export.py RUN_DIR OUT --format datasets        for datasets.load_from_disk
python jobs/export.py RUN_DIR ORG/NAME --format hub        to the hub, private unless --public
"""

import argparse
import sys

from dynts_batch.data.export import FORMATS, export
from dynts_batch.data.run_dir import RunDir
from dynts_batch.errors import ConfigError
from dynts_batch.exit_status import exit_status_of


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run_dir", metavar="RUN_DIR", help="folder or URI, as in run.dir")
    parser.add_argument("out", metavar="OUT", help="folder or URI; for the hub ORG/NAME")
    parser.add_argument("--format", choices=FORMATS, default="parquet")
    parser.add_argument("--file-mb", type=float, default=256, help="size of a file, roughly")
    parser.add_argument("--columns", help="those to write, with commas between; default all")
    parser.add_argument("--partial", action="store_true", help="what there is of an unfinished run")
    parser.add_argument("--public", action="store_true", help="on the hub: for everybody to see")
    args = parser.parse_args()
    if args.file_mb <= 0:
        raise ConfigError(f"--file-mb must be above 0, got {args.file_mb:g}")
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
    return 0


if __name__ == "__main__":
    sys.exit(exit_status_of(main))
