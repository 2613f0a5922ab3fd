"""kvpress in a process of its own: it needs an older transformers than ours, hence another environment's interpreter.

One line of JSON each way: the workload, then a load a line, each answered by its times and completions.
"""

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from dynts_batch.benchmarks.stopwatch import Timed
from dynts_batch.benchmarks.workload import Load, Workload
from dynts_batch.errors import ConfigError

ROOT = Path(__file__).parents[2]


def kvpress_process(workload: Workload, python: str | None) -> Callable[[Load], Timed]:
    """Starts the process; it ends when its input does, with this one at the latest.

    Raises: ConfigError where no interpreter is named, or it has no kvpress.
    """
    if python is None:
        raise ConfigError(
            "contender kvpress needs --kvpress-python, the interpreter of an environment with kvpress"
        )
    process = subprocess.Popen(
        [python, "-m", "dynts_batch.benchmarks.contenders.kvpress_child"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    requests, answers = process.stdin, process.stdout

    def ask(question: dict) -> dict:
        requests.write(json.dumps(question) + "\n")
        requests.flush()
        line = answers.readline()
        if not line:
            process.communicate()
            raise ConfigError(f"contender kvpress: {python} ended with status {process.returncode}")
        return json.loads(line)

    ask(asdict(workload))
    return lambda load: Timed(**ask(load.as_json()))
