"""How every subcommand reads its arguments."""

from __future__ import annotations

import argparse


def command_parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """An empty parser of the subcommand `name`. `description` is printed as it is, line by line."""
    return argparse.ArgumentParser(
        prog=f"dynts-batch {name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_run_dir(parser: argparse.ArgumentParser) -> None:
    """RUN_DIR, of an existing run."""
    parser.add_argument("run_dir", metavar="RUN_DIR", help="folder or URI, as in run.dir")


def add_config(parser: argparse.ArgumentParser) -> None:
    """CONFIG, a file or the name of a shipped configuration."""
    parser.add_argument(
        "config",
        metavar="CONFIG",
        help="YAML file, or a name that `dynts-batch config` lists",
    )


def add_overrides(parser: argparse.ArgumentParser, example: str) -> None:
    """Any number of `key=value`, such as `example`."""
    parser.add_argument(
        "overrides",
        nargs="*",
        default=[],  # argparse asks for one where there is no default
        metavar="key=value",
        help=f"e.g. {example}",
    )
