"""Compare the engine's speed with its peers, and with what the machine could do.

Modes: `equal-batch`: all with the same batch. `equal-memory`: each with the largest batch that fits
into kv_gib of KV cache. `ragged`: continuous against static batches on the lengths of the embedded
model's traces. `growth`: step time against position. `breakdown`: where our engine's decode time
goes. `roofline`: a decode step of our engine beside what the machine could do.

Contenders: a policy's name runs this package's engine, with options as in thinkv+quantize=true or
full+weights=int8. Its peers are hf-generate (default cache), hf-static and hf-continuous. Others
run in an environment of their own, which --python names: kvpress, openvino, openvino-evicting (it
keeps `budget` tokens) and vllm. openvino reads an export of the model, from the folder ov-NAME
beside it. With +weights=int8 it is ov-int8-NAME, and vllm-int8-NAME (compressed-tensors) for vllm.
The first contender is the baseline.

Keys are those of `dynts_batch.benchmarks.workload.Workload`. With --model and --problems the model
is a real one and its prompts are questions. Each then generates max_new_tokens, or with `ragged`
what the model itself does.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from dynts_batch.benchmarks.breakdown import breakdown, print_breakdown
from dynts_batch.benchmarks.contenders.contenders import make_contender
from dynts_batch.benchmarks.growth import growth, print_growth
from dynts_batch.benchmarks.loads import LOADS
from dynts_batch.benchmarks.measure import Row, measure, print_table, write_rows
from dynts_batch.benchmarks.roofline import print_roofline, roofline
from dynts_batch.benchmarks.workload import Workload
from dynts_batch.cli.arguments import add_overrides, command_parser
from dynts_batch.config_file import load_settings
from dynts_batch.exit_status import EXIT_OK

#: The modes that look at one contender at a time.
_STUDIES: dict[str, Callable[[str, Workload], list[Row]]] = {
    "growth": growth,
    "breakdown": breakdown,
    "roofline": roofline,
}


def main(arguments: Sequence[str]) -> int:
    args = parse(arguments)
    real = {"model": args.model, "problems": args.problems}
    overrides = [*args.overrides, *(f"{key}={value}" for key, value in real.items() if value)]
    workload = load_settings(Workload, overrides)
    names = args.contenders.split(",")
    console = Console()
    console.print(workload)
    if args.mode in _STUDIES:
        rows = [row for name in names for row in _STUDIES[args.mode](name, workload)]
    else:
        rows = _compare(args, names, workload)
    _print(args.mode, rows, workload, console)
    if args.out is not None:
        write_rows(rows, args.out)
    return EXIT_OK


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = command_parser("bench", __doc__)
    parser.add_argument("--mode", default="equal-batch", choices=[*LOADS, *_STUDIES])
    parser.add_argument("--contenders", default="hf-generate,dynts,window,full")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--python", metavar="NAME=PATH", action="append", default=[], type=_named_path,
        help="interpreter of an environment with kvpress, openvino or vllm",
    )  # fmt: skip
    parser.add_argument("--model", help="folder of a real model")
    parser.add_argument("--problems", help="JSON lines, each with a question")
    parser.add_argument("--out", type=Path, help="write every measurement to this Parquet file")
    add_overrides(parser, "max_new_tokens=1024")
    return parser.parse_intermixed_args(arguments)


def _compare(args: argparse.Namespace, names: Sequence[str], workload: Workload) -> list[Row]:
    loads = LOADS[args.mode](names, workload)
    contenders = {
        name: make_contender(name, workload, load, dict(args.python))
        for name, load in loads.items()
    }
    return measure(contenders, loads, args.rounds)


def _named_path(text: str) -> tuple[str, str]:
    name, equals, path = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"must be NAME=PATH, got {text!r}")
    return name, path


def _print(mode: str, rows: list[Row], workload: Workload, console: Console) -> None:
    if mode == "growth":
        print_growth(rows, workload.budget, console)
    elif mode == "breakdown":
        print_breakdown(rows, console)
    elif mode == "roofline":
        print_roofline(rows, console)
    else:
        print_table(rows, console)
