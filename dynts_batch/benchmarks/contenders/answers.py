"""What every child process does: it reads its settings, then a load a line,
and answers each on the standard output.

Imported in other environments, so it needs nothing but Python.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

#: The completions of a load, which is as workload.py writes it.
Generate = Callable[[dict[str, Any]], list[list[int]]]


def answer(make: Callable[[dict[str, Any]], Generate]) -> None:
    """`make` loads a model by the settings and returns what runs loads."""
    settings = json.loads(sys.stdin.readline())
    with _standard_output_to_error():
        generate = make(settings)
    print(json.dumps({}), flush=True)
    for line in sys.stdin:
        load = json.loads(line)
        with _standard_output_to_error():
            wall, cpu = time.perf_counter(), time.process_time()
            completions = generate(load)
            took = time.perf_counter() - wall, time.process_time() - cpu
        found = {"wall_s": took[0], "cpu_s": took[1], "completions": completions}
        print(json.dumps(found), flush=True)


@contextmanager
def _standard_output_to_error() -> Iterator[None]:
    """Only answers may stand on the standard output."""
    kept, sys.stdout = sys.stdout, sys.stderr
    try:
        yield
    finally:
        sys.stdout = kept
