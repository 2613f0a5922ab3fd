"""Write a set of the built-in problems. The defaults give the set that comes with the package."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dynts_batch.cli.arguments import command_parser
from dynts_batch.exit_status import EXIT_OK
from dynts_batch.lab.problem_file import SHIPPED_SEED, SHIPPED_SIZE, write_problems


def main(arguments: Sequence[str]) -> int:
    parser = command_parser("make-problems", __doc__)
    parser.add_argument("out", metavar="OUT.parquet", type=Path)
    parser.add_argument("--seed", type=int, default=SHIPPED_SEED)
    parser.add_argument("--num-problems", type=int, default=SHIPPED_SIZE)
    args = parser.parse_args(arguments)
    write_problems(args.out, args.seed, args.num_problems)
    print(f"wrote {args.num_problems} problems of seed {args.seed} to {args.out}")
    return EXIT_OK
