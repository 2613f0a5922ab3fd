"""Engines in a process of their own: what they need does not fit beside ours,
hence another environment's interpreter.

One line of JSON each way: the settings, then a load a line,
each answered by its times and completions.
"""

import json
import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dynts_batch.benchmarks.stopwatch import Timed
from dynts_batch.benchmarks.workload import Load
from dynts_batch.errors import ConfigError

ROOT = Path(__file__).parents[3]


def child_process(
    name: str, python: str | None, settings: Mapping[str, Any]
) -> Callable[[Load], Timed]:
    """Starts `NAME_child.py` by the interpreter `python`;
    it ends when its input does, with this process at the latest.

    Raises: ConfigError where no interpreter is named, or it has no such engine.
    """
    if python is None:
        raise ConfigError(
            f"contender {name} needs --python {name}=PATH, the interpreter of an environment with"
            f" {name}"
        )
    process = subprocess.Popen(
        [python, "-m", f"dynts_batch.benchmarks.contenders.{name}_child"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    requests, answers = process.stdin, process.stdout

    def ask(question: Mapping[str, Any]) -> dict[str, Any]:
        requests.write(json.dumps(question) + "\n")
        requests.flush()
        line = answers.readline()
        if not line:
            process.communicate()
            raise ConfigError(f"contender {name}: {python} ended with status {process.returncode}")
        return json.loads(line)

    ask(settings)
    return lambda load: Timed(**ask(load.as_json()))
