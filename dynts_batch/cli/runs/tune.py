"""The cheapest policy and budget that is as good as the full cache, up to so many points.

Runs the full cache and each candidate on the same questions, in one random order and no further
than it takes to tell. Budgets go from the largest to the smallest. Each is tried only once the one
before it is certified to lose less than --points of accuracy. --delta is the chance that any
candidate is certified although it loses more; several policies share it. Without
input.reference_column, answers that differ from the full cache's count as lost. It says first how
many questions it will need.

Writes OUT_DIR/certificate.json, tuned.yaml (ready to run) and tune.svg. The same command resumes,
and pays for no row twice.
"""

from __future__ import annotations

from collections.abc import Sequence

from dynts_batch.cli.arguments import add_config, add_overrides, command_parser
from dynts_batch.report.tuning.ladder import Terms
from dynts_batch.runner.tuning.settings import TuneSettings
from dynts_batch.runner.tuning.tune import tune

_SHARES = (70.0, 50.0, 35.0, 25.0)


def main(arguments: Sequence[str]) -> int:
    parser = command_parser("tune", __doc__)
    add_config(parser)
    parser.add_argument("--out", metavar="OUT_DIR", help="default: run.dir with -tune behind it")
    parser.add_argument("--points", type=float, default=2.0, help="most to lose (default: 2)")
    parser.add_argument("--delta", type=float, default=0.05, help="default: 0.05")
    parser.add_argument(
        "--policies",
        default=(),
        type=_names,
        metavar="A,B,...",
        help="safest first, as of frontier (default: policy.name)",
    )
    budgets = parser.add_mutually_exclusive_group()
    budgets.add_argument("--budgets", type=_integers, metavar="N,M,...", help="in tokens")
    budgets.add_argument(
        "--shares",
        type=_numbers,
        default=_SHARES,
        metavar="P,Q,...",
        help="in percent of what the full cache stores at its peak, by 32 questions that are used"
        " for nothing else (default: 70,50,35,25)",
    )
    parser.add_argument("--order-seed", type=int, default=0, help="of the questions (default: 0)")
    parser.add_argument("--max-questions", type=int, metavar="N", help="default: all there are")
    add_overrides(parser, "policy.window_size=32")
    args = parser.parse_intermixed_args(arguments)
    return tune(
        TuneSettings(
            config_path=args.config,
            overrides=tuple(args.overrides),
            out=args.out,
            policies=args.policies,
            budgets=args.budgets,
            shares=args.shares,
            terms=Terms(args.points / 100, args.delta),
            order_seed=args.order_seed,
            max_questions=args.max_questions,
        )
    )


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))


def _integers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))
