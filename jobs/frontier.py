"""Accuracy against memory: `python jobs/frontier.py CONFIG OUT_DIR --policies A,B --budgets N,M [key=value ...]`.

Runs CONFIG with every policy at every budget and seed, and with the full cache, each in a run directory of its own
below OUT_DIR/cells. A policy may have options: `h2o+accumulate=false+shared_index=true`. Writes OUT_DIR/frontier.parquet
and frontier.svg and prints a table. The same command resumes; --cells bounds how many runs it starts.
"""

import argparse
import sys
from pathlib import Path

from dynts_batch.exit_status import exit_status_of
from dynts_batch.runner.frontier import frontier, plan_cells


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", metavar="CONFIG", help="YAML file, see configs/")
    parser.add_argument("out", metavar="OUT_DIR", type=Path)
    parser.add_argument("--policies", required=True, metavar="A,B,...")
    parser.add_argument("--budgets", required=True, type=_integers, metavar="N,M,...")
    parser.add_argument("--seeds", default=[0], type=_integers, metavar="S,T,...")
    parser.add_argument("--cells", type=int, metavar="N", help="start at most N runs, then draw")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    args = parser.parse_intermixed_args()
    cells = plan_cells(args.policies.split(","), args.budgets, args.seeds)
    return frontier(args.config, args.out, cells, args.cells, args.overrides)


def _integers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


if __name__ == "__main__":
    sys.exit(exit_status_of(main, hint="The same command goes on from there."))
