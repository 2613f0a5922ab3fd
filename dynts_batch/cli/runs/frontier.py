"""Accuracy against memory.

Runs CONFIG with every policy at every budget and seed, and with the full cache. Each run has its
own directory below OUT_DIR/cells. A policy may have options:
`h2o+accumulate=false+shared_index=true`. Writes OUT_DIR/frontier.parquet and frontier.svg, and
prints a table. The same command resumes; --cells bounds how many runs it starts.

--shares 35,50 replaces --budgets. A share is in percent of the tokens that a row of the full cache
stores at its peak, on average. The full cache runs first.
"""

from __future__ import annotations

from collections.abc import Sequence

from dynts_batch.cli.arguments import add_config, add_overrides, command_parser
from dynts_batch.errors import ConfigError
from dynts_batch.runner.frontier import frontier, frontier_of_shares, plan_cells


def main(arguments: Sequence[str]) -> int:
    parser = command_parser("frontier", __doc__)
    add_config(parser)
    parser.add_argument("out", metavar="OUT_DIR", help="folder or URI")
    parser.add_argument("--policies", required=True, metavar="A,B,...")
    budgets = parser.add_mutually_exclusive_group(required=True)
    budgets.add_argument("--budgets", type=_integers, metavar="N,M,...", help="in tokens")
    budgets.add_argument("--shares", type=_numbers, metavar="P,Q,...", help="in percent of full")
    parser.add_argument("--seeds", default=[0], type=_integers, metavar="S,T,...")
    parser.add_argument("--cells", type=int, metavar="N", help="start at most N runs, then draw")
    add_overrides(parser, "policy.window_size=32")
    args = parser.parse_intermixed_args(arguments)
    if args.cells is not None and args.cells < 0:
        raise ConfigError(f"--cells must be at least 0, got {args.cells}")
    policies, rest = args.policies.split(","), (args.cells, args.overrides)
    if args.shares:
        return frontier_of_shares(args.config, args.out, policies, args.shares, args.seeds, *rest)
    cells = plan_cells(policies, args.budgets, args.seeds)
    return frontier(args.config, args.out, cells, *rest)


def _numbers(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


def _integers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]
