"""Runs on the fake engine: their input, their configuration, and what must be equal between two."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from dynts_batch.config import Config
from dynts_batch.config_file import load_config
from dynts_batch.data.run_dir import RunDir

#: Columns that depend on the problem and the settings only, not on who ran the row and when.
STABLE = (
    *("request_id", "sample_index", "seed", "question", "prompt", "reasoning", "answer"),
    *("extracted_answer", "finish_reason", "error_type", "reference", "correct"),
    *("prompt_tokens", "reasoning_tokens", "completion_tokens", "evicted_tokens", "num_evictions"),
    *("peak_cache_len", "peak_kv_bytes", "full_kv_bytes", "completion_token_ids"),
)


def write_problems(path: Path, num_rows: int, special: dict[int, str] | None = None) -> Path:
    """Problems whose reference is what the fake engine answers; `special` replaces prompts."""
    with path.open("w") as file:
        for index in range(num_rows):
            question = (special or {}).get(index, f"problem number {index} of the test")
            row = {"id": f"p{index}", "question": question, "answer": str(len(question))}
            file.write(f"{json.dumps(row)}\n")
    return path


def write_config(folder: Path, input_path: Path, **groups: dict[str, Any]) -> Path:
    """A configuration file for the fake engine; `groups` are merged over the defaults."""
    columns = {"id_column": "id", "prompt_column": "question", "reference_column": "answer"}
    config: dict[str, dict[str, Any]] = {
        "model": {"name": "fake"},
        "input": {"path": str(input_path), **columns},
        "sampling": {"max_new_tokens": 20},
        "policy": {"name": "window", "budget": 16, "window_size": 4},
        "memory": {"max_seqs": 4},
        "run": {"dir": str(folder / "run"), "shard_rows": 5},
        "workers": {"num_cpus": 0.25},
        "grading": {"kind": "exact"},
    }
    for group, keys in groups.items():
        config[group] = config.get(group, {}) | keys
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def make_config(
    folder: Path,
    num_rows: int = 23,
    special: dict[int, str] | None = None,
    **groups: dict[str, Any],
) -> Config:
    problems = write_problems(folder / "problems.jsonl", num_rows, special)
    return load_config(str(write_config(folder, problems, **groups)))


def stable_rows(run_dir: str | Path) -> list[dict[str, Any]]:
    """The rows of a run in its order, without what may differ between two runs."""
    batches = list(RunDir(str(run_dir)).read_rows())
    return pa.Table.from_batches(batches).select(STABLE).to_pylist()
