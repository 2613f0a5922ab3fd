"""Run directories written row by row, for the tests of what reads them."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from dynts_batch.config import Config
from dynts_batch.config_file import load_config
from dynts_batch.data.readers.samples import SCHEMA
from dynts_batch.data.run_dir import RunDir
from dynts_batch.data.schema import row_schema

SCHEMA_OF_ROWS = row_schema(pa.schema([("question", pa.string())]))

ROW: dict[str, Any] = {
    "request_id": "q0", "sample_index": 0, "seed": 0, "question": "2+2?", "prompt": "2+2?",
    "reasoning": "It is 4.",
    "answer": "\\boxed{4}", "extracted_answer": "4", "finish_reason": "stop", "reference": "4",
    "correct": True, "text_matters": False,
    "prompt_tokens": 10, "reasoning_tokens": 70, "completion_tokens": 91, "evicted_tokens": 70,
    "num_evictions": 3,
    "peak_cache_len": 30, "peak_kv_bytes": 3_000, "full_kv_bytes": 10_000, "queue_s": 0.0,
    "prefill_s": 0.1,
    "decode_s": 2.0, "device_s": 1.5, "energy_j": 6.0, "cost_usd": 0.25, "worker_id": "w-0",
    "node": "n", "device_name": "cpu", "device_uuid": None, "device_peak_bytes": None, "attempt": 1,
}  # fmt: skip

ERROR_ROW: dict[str, Any] = ROW | {
    "reasoning": None, "answer": None, "extracted_answer": None, "finish_reason": "error",
    "error_type": "BadRowError",
    "error_message": "line 1: bad", "correct": None, "text_matters": None, "prompt_tokens": 0,
    "reasoning_tokens": 0, "completion_tokens": 0,
    "evicted_tokens": 0, "num_evictions": 0, "peak_cache_len": 0, "peak_kv_bytes": 0,
    "full_kv_bytes": 0, "device_s": 0.0, "energy_j": None, "cost_usd": None,
}  # fmt: skip

SAMPLE: dict[str, Any] = {
    "worker_id": "w-0", "node": "n", "device_name": "cpu", "device_uuid": None, "time_s": 1_000.0,
    "num_running": 4,
    "num_waiting": 0, "stored_tokens": 100, "arena_bytes": 20_000, "busy_s": 0.0,
    "completion_tokens": 0,
    "energy_j": None, "rss_peak_bytes": 2**30, "device_peak_bytes": None,
    "allocator_peak_bytes": None, "utilisation_mean": None, "power_mean_w": None,
}  # fmt: skip


#: Text that would be markup, script or a formula if anyone let it.
HOSTILE = (
    "<script>alert(1)</script>", "</script><script>alert(2)", "<img src=x onerror=alert(3)>",
    "</div></details></table>",
    "<!-- ", "-->", "\" onclick=\"alert(4)\" x=\"", "' onclick='alert(5)' x='", "&lt;b&gt;",
    "{{ 7191 * 7 }}", "{% raw %}",
    "</style><style>*{display:none}", "$\\frac{1}{$", "<svg><use href=\"https://example.com/x\">",
    "]]>", "\x00\x07", "\u202e", "</title>", "<a href=\"javascript:alert(6)\">",
)  # fmt: skip
EVIL = " ".join(HOSTILE)


EVIL = " ".join(HOSTILE)


def evil_rows() -> list[dict[str, Any]]:
    """An answer with a trace, a wrong one without, and an error, all of hostile text."""
    trace = {
        "token_texts": [EVIL, " x", EVIL, EVIL],
        "evicted_at": [None, 4, None, None],
        "half_evicted_at": [None, 3, None, None],
        "kept_share": [1.0, 0.0, 0.5, 1.0],
        "stored_len": [1, 2, 2, 2],
    }
    texts = dict.fromkeys(
        ("prompt", "reasoning", "answer", "extracted_answer", "reference", "question"), EVIL
    )
    counts = {"prompt_tokens": 1, "reasoning_tokens": 1, "completion_tokens": 2}
    return [
        texts | counts | {"request_id": f"{EVIL}1", "token_trace": trace},
        texts | {"request_id": f"{EVIL}2", "correct": False},
        ERROR_ROW | {"request_id": f"{EVIL}3", "error_type": EVIL, "error_message": EVIL},
    ]


def write_run(
    path: Path,
    rows: Sequence[Mapping[str, Any]],
    samples: Sequence[Mapping[str, Any]] = (SAMPLE, SAMPLE | {"time_s": 1_010.0, "busy_s": 9.0}),
    *,
    overrides: Sequence[str] = (),
    shard_rows: int = 64,
    finished: bool = True,
) -> str:
    """A run directory of `rows` (changes to ROW) and telemetry `samples`; returns its path."""
    config = config_of(path, overrides)
    run_dir = RunDir(str(path))
    run_dir.create_or_resume(config, {"num_units": len(rows), "shard_rows": shard_rows})
    whole = [dict.fromkeys(SCHEMA_OF_ROWS.names) | ROW | dict(row) for row in rows]
    for shard, start in enumerate(range(0, len(whole), shard_rows)):
        part = whole[start : start + shard_rows]
        units = [(row["request_id"], row["sample_index"]) for row in part]
        run_dir.commit_shard(shard, pa.Table.from_pylist(part, SCHEMA_OF_ROWS), units)
    for number, sample in enumerate(samples):
        names = {field.name for field in SCHEMA}
        table = pa.Table.from_pylist([{k: v for k, v in sample.items() if k in names}], SCHEMA)
        run_dir.write_telemetry(sample["worker_id"], number, table)
    if finished:
        run_dir.write_manifest({"num_rows": len(rows)})
    return str(path)


def config_of(path: Path, overrides: Sequence[str] = ()) -> Config:
    groups = {
        "model": {"name": EVIL},
        "input": {"path": "x", "prompt_column": "question"},
        "run": {"dir": str(path)},
        "policy": {"name": "window", "budget": 30, "window_size": 8},
        "sampling": {"max_new_tokens": 100},
        "memory": {"max_prompt_tokens": 20},
    }
    return load_config(io.StringIO(yaml.safe_dump(groups)), overrides)
