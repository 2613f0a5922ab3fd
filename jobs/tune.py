"""`dynts-batch tune` for `ray job submit`, from a clone."""

import sys

from dynts_batch.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["tune", *sys.argv[1:]]))
