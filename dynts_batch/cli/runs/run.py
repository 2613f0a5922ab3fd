"""Answer a data set.

The same command again resumes; on a finished run it does nothing. Exit status: 0 every row is
there, 3 every row is there and some failed, 4 run.max_cost_usd or run.max_hours stopped it, 2 a
setting, the input or the run directory is unusable, 1 the run broke off, 130 or 143 it was
interrupted.
"""

from __future__ import annotations

from collections.abc import Sequence

from dynts_batch.cli.arguments import add_config, add_overrides, command_parser
from dynts_batch.runner.reason import reason


def main(arguments: Sequence[str]) -> int:
    parser = command_parser("run", __doc__)
    add_config(parser)
    add_overrides(parser, "policy.budget=512")
    args = parser.parse_intermixed_args(arguments)
    return reason(args.config, args.overrides)
