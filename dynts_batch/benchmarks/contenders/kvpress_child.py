"""The other end of kvpress_process.py, run by an interpreter that has kvpress."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial

from kvpress import DecodingPress, KnormPress

from dynts_batch.benchmarks.contenders.static_batches import generate_static_batches
from dynts_batch.benchmarks.stopwatch import timed
from dynts_batch.benchmarks.workload import Load, Workload


@contextmanager
def standard_output_to_error() -> Iterator[None]:
    """Only answers may stand on the standard output."""
    kept, sys.stdout = sys.stdout, sys.stderr
    try:
        yield
    finally:
        sys.stdout = kept


def main() -> None:
    workload = Workload(**json.loads(sys.stdin.readline()))
    model = workload.make_model()
    print(json.dumps({}), flush=True)
    # The cheapest scores there are, and the cache swings between the same sizes as ours.
    press = DecodingPress(
        KnormPress(),
        compression_interval=workload.budget - workload.retained_len,
        target_size=workload.retained_len,
        hidden_states_buffer_size=0,
    )
    for line in sys.stdin:
        load = Load(**json.loads(line))
        with standard_output_to_error(), press(model):
            result = timed(partial(generate_static_batches, model, load))
        print(json.dumps(asdict(result)), flush=True)


if __name__ == "__main__":
    main()
