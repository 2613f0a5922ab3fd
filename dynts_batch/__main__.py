"""`python -m dynts_batch` is the command `dynts-batch`, in case scripts are not on the PATH."""

import sys

from dynts_batch.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
