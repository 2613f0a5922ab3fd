"""The entry point of `dynts-batch`: finds the subcommand, and turns its end into an exit status.

Imports a subcommand only when it is used: help and a typing error must not wait for torch or Ray.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

import dynts_batch
from dynts_batch.cli.commands import COMMANDS, GROUPS, Command
from dynts_batch.errors import choices_hint
from dynts_batch.exit_status import EXIT_UNUSABLE, exit_status_of


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status of `dynts-batch ARGUMENTS`. None: the arguments of this process."""
    parser = argparse.ArgumentParser(
        prog="dynts-batch",
        usage="dynts-batch COMMAND ...",
        description=_overview(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--version", action="version", version=f"dynts-batch {dynts_batch.__version__}"
    )
    parser.add_argument("command", help=argparse.SUPPRESS)
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.command not in COMMANDS:
        hint = choices_hint(args.command, list(COMMANDS))
        print(f"error: unknown command {args.command}. {hint}", file=sys.stderr)
        return EXIT_UNUSABLE
    return _run(COMMANDS[args.command], args.arguments)


def _run(command: Command, arguments: Sequence[str]) -> int:
    def job() -> int:
        status: int = import_module(f"dynts_batch.cli.{command.module}").main(arguments)
        return status

    return exit_status_of(
        job, hint="The same command goes on from there." if command.resumes else ""
    )


def _overview() -> str:
    lines = [
        "Runs a reasoning model over a whole data set on Ray, and prices every correct answer."
    ]
    width = max(map(len, COMMANDS))
    for title, group in GROUPS.items():
        lines += ["", f"{title}:", *(f"  {c.name:<{width}}  {c.summary}" for c in group)]
    lines += ["", "`dynts-batch COMMAND --help` explains one."]
    return "\n".join(lines)
