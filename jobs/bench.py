"""Compare the engine's speed with its peers: `python jobs/bench.py [--contenders a,b] [--rounds N] [key=value ...]`.

Keys are those of `dynts_batch.benchmarks.contenders.Workload`; the first contender is the baseline.
"""

import argparse
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from dynts_batch.benchmarks.contenders import Workload
from dynts_batch.benchmarks.measure import measure, print_table
from dynts_batch.config_file import load_settings
from dynts_batch.exit_status import exit_status_of


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--contenders", default="hf-generate,dynts,window,full")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--out", type=Path, help="write every round's tokens/s to this Parquet file"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    args = parser.parse_args()
    workload = load_settings(Workload, args.overrides)
    names = args.contenders.split(",")
    speeds = measure(names, workload, args.rounds)
    console = Console()
    console.print(workload)
    print_table(speeds, names[0], console)
    if args.out is not None:
        rows = [
            {"contender": name, "round": index, "tokens_per_s": speed}
            for name, values in speeds.items()
            for index, speed in enumerate(values)
        ]
        pq.write_table(pa.Table.from_pylist(rows), args.out)
    return 0


if __name__ == "__main__":
    sys.exit(exit_status_of(main))
