"""Accuracy against memory: `python jobs/frontier.py CONFIG OUT_DIR --policies A,B --budgets N,M [key=value ...]`.

With --shares 35,50 instead of --budgets they are percent of the tokens that a row of the full cache, which is run first,
stores at its peak on the average.

Runs CONFIG with every policy at every budget and seed, and with the full cache, each in a run directory of its own
below OUT_DIR/cells. A policy may have options: `h2o+accumulate=false+shared_index=true`. Writes OUT_DIR/frontier.parquet
and frontier.svg and prints a table. The same command resumes; --cells bounds how many runs it starts.
"""

import argparse
import sys
from pathlib import Path

from dynts_batch.exit_status import exit_status_of
from dynts_batch.runner.frontier import frontier, frontier_of_shares, plan_cells


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", metavar="CONFIG", help="YAML file, see configs/")
    parser.add_argument("out", metavar="OUT_DIR", type=Path)
    parser.add_argument("--policies", required=True, metavar="A,B,...")
    budgets = parser.add_mutually_exclusive_group(required=True)
    budgets.add_argument("--budgets", type=_integers, metavar="N,M,...", help="in tokens")
    budgets.add_argument("--shares", type=_numbers, metavar="P,Q,...", help="in percent of full")
    parser.add_argument("--seeds", default=[0], type=_integers, metavar="S,T,...")
    parser.add_argument("--cells", type=int, metavar="N", help="start at most N runs, then draw")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    args = parser.parse_intermixed_args()
    policies, rest = args.policies.split(","), (args.cells, args.overrides)
    if args.shares:
        return frontier_of_shares(args.config, args.out, policies, args.shares, args.seeds, *rest)
    cells = plan_cells(policies, args.budgets, args.seeds)
    return frontier(args.config, args.out, cells, *rest)


def _numbers(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


def _integers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


if __name__ == "__main__":
    sys.exit(exit_status_of(main, hint="The same command goes on from there."))
