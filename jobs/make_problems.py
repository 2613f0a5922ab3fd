"""Write a set of the built-in problems: `python jobs/make_problems.py OUT.parquet [--seed N] [--num-problems N]`.

The defaults give the set that comes with the package.
"""

import argparse
import sys
from pathlib import Path

from dynts_batch.lab.problem_file import SHIPPED_SEED, SHIPPED_SIZE, write_problems


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=SHIPPED_SEED)
    parser.add_argument("--num-problems", type=int, default=SHIPPED_SIZE)
    args = parser.parse_args()
    write_problems(args.out, args.seed, args.num_problems)
    print(f"wrote {args.num_problems} problems of seed {args.seed} to {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
