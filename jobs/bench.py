"""Compare the engine's speed with its peers, and with what the machine could do.

    python jobs/bench.py [--mode MODE] [--contenders a,b] [--rounds N] [--out FILE] [key=value ...]

Modes: `equal-batch`: all with the same batch. `equal-memory`: each with the largest batch that fits into kv_gib of KV
cache. `ragged`: continuous against static batches on the lengths of the embedded model's traces. `growth`: step time
against position. `breakdown`: what our engine's decode time goes to. `roofline`: a decode step of our engine beside what the
machine could do.

Contenders: a policy's name, with its options as in thinkv+quantize=true, runs this package's engine; its peers are
hf-generate (default cache), hf-static, hf-continuous and kvpress. The first one is the baseline. Keys are those of
`dynts_batch.benchmarks.workload.Workload`.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from dynts_batch.benchmarks.breakdown import breakdown, print_breakdown
from dynts_batch.benchmarks.contenders.contenders import make_contender
from dynts_batch.benchmarks.growth import growth, print_growth
from dynts_batch.benchmarks.loads import LOADS
from dynts_batch.benchmarks.measure import Row, measure, print_table
from dynts_batch.benchmarks.roofline import print_roofline, roofline
from dynts_batch.benchmarks.workload import Workload
from dynts_batch.config_file import load_settings
from dynts_batch.exit_status import exit_status_of


def main() -> int:
    args = parse(sys.argv[1:])
    workload = load_settings(Workload, args.overrides)
    names = args.contenders.split(",")
    console = Console()
    console.print(workload)
    rows: list[Row]
    if args.mode == "growth":
        rows = [row for name in names for row in growth(name, workload)]
        print_growth(rows, workload.budget, console)
    elif args.mode == "breakdown":
        rows = [row for name in names for row in breakdown(name, workload)]
        print_breakdown(rows, console)
    elif args.mode == "roofline":
        rows = [row for name in names for row in roofline(name, workload)]
        print_roofline(rows, console)
    else:
        loads = LOADS[args.mode](names, workload)
        contenders = {
            name: make_contender(name, workload, load, args.kvpress_python)
            for name, load in loads.items()
        }
        rows = measure(contenders, loads, args.rounds)
        print_table(rows, console)
    if args.out is not None:
        pq.write_table(pa.Table.from_pylist(rows), args.out)
    return 0


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--mode", default="equal-batch", choices=[*LOADS, "growth", "breakdown", "roofline"]
    )
    parser.add_argument("--contenders", default="hf-generate,dynts,window,full")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kvpress-python", help="interpreter of an environment with kvpress")
    parser.add_argument("--out", type=Path, help="write every measurement to this Parquet file")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    return parser.parse_intermixed_args(arguments)


if __name__ == "__main__":
    sys.exit(exit_status_of(main))
