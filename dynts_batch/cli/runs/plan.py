"""What a run will take, before it is paid for.

Runs a random sample of the rows on one worker. Prints tokens, hours, dollars and kWh of the whole
run with 95% intervals, how many rows fit the KV arena, and whether KV memory is the limit at all.
If the sample cannot fill the batch as the run will, hours and dollars are ranges instead. The
sample is kept beside the run directory, so planning again is free. Exit status as for
`dynts-batch run`.
"""

from __future__ import annotations

from collections.abc import Sequence

from dynts_batch.cli.arguments import add_config, add_overrides, command_parser
from dynts_batch.runner.forecast import forecast


def main(arguments: Sequence[str]) -> int:
    parser = command_parser("plan", __doc__)
    add_config(parser)
    parser.add_argument("--rows", type=int, default=64, help="size of the sample (default: 64)")
    add_overrides(parser, "policy.budget=512")
    args = parser.parse_intermixed_args(arguments)
    return forecast(args.config, args.overrides, num_rows=args.rows)
