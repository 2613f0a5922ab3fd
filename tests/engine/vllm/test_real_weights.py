"""GSM8K on published models, by vLLM and by the arena: `DYNTS_MODELS=FOLDER DYNTS_DATA=FOLDER
pytest -m long -s tests/engine/vllm/test_real_weights.py` in an environment with vLLM.
FOLDER/smollm2-135m is a model, FOLDER/gsm8k.jsonl a set.
"""

import os
import signal
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from job_process import JobProcess, assert_every_row_once, rows_of
from transformers import AutoModelForCausalLM, AutoTokenizer

NUM_ROWS = 64
#: So many that it ends in minutes on one core.
NEW_TOKENS = {"smollm2-135m": 256, "coder-0.5b": 128}
#: Logits of float32 that two ways to compute them may round to either side of each other.
TIE = 1e-3
MODELS = Path(os.environ.get("DYNTS_MODELS", "models"))
DATA = Path(os.environ.get("DYNTS_DATA", Path(__file__).parents[4] / "shared" / "data"))

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed"),
    pytest.mark.skipif(not (DATA / "gsm8k.jsonl").is_file(), reason="no GSM8K; set DYNTS_DATA"),
    pytest.mark.timeout(3600),
]


def start(name: str, run_dir: Path, **settings) -> JobProcess:
    config = run_dir.parent / "gsm8k.yaml"
    config.write_text("policy: {name: full}\n")
    given = {
        "model.name": MODELS / name,
        "model.dtype": "float32",
        "input.path": DATA / "gsm8k.jsonl",
        "input.prompt_column": "question",
        "input.reference_column": "answer",
        "input.limit": NUM_ROWS,
        "sampling.temperature": 0,
        "sampling.max_new_tokens": NEW_TOKENS[name],
        "memory.kv_gib": 0.7,
        "memory.max_seqs": 16,
        "memory.max_prompt_tokens": 300,
        "run.dir": run_dir,
        "run.shard_rows": 8,
        "run.checkpoint_s": 5,
        "cost.usd_per_gpu_hour": 1,
    }
    return JobProcess(config, given | settings)


def gaps(name: str, pairs: list[tuple[dict, dict]]) -> list[float]:
    """Of each two rows that differ: how far apart transformers puts the
    logits of the first two tokens that do."""
    tokenizer = AutoTokenizer.from_pretrained(MODELS / name)
    model = AutoModelForCausalLM.from_pretrained(MODELS / name, dtype=torch.float32)
    found = []
    for a, b in pairs:
        ids_a, ids_b = a["completion_token_ids"], b["completion_token_ids"]
        first = next(i for i in range(len(ids_a)) if ids_a[i] != ids_b[i])
        prompt = tokenizer(a["prompt"], add_special_tokens=False)["input_ids"]
        assert len(prompt) == a["prompt_tokens"]
        with torch.inference_mode():
            logits = model(torch.tensor([prompt + ids_a[:first]])).logits[0, -1]
        found.append(abs(float(logits[ids_a[first]] - logits[ids_b[first]])))
        assert float(logits.max() - logits[ids_a[first]]) < TIE
    return found


@pytest.mark.parametrize("name", NEW_TOKENS)
def test_greedy_rows_are_those_of_the_arena_but_for_ties_whoever_is_killed(name, tmp_path):
    if not (MODELS / name).is_dir():
        pytest.skip(f"no model at {MODELS / name}; set DYNTS_MODELS")
    start(name, tmp_path / "arena").finish(timeout_s=1800)
    job = start(name, tmp_path / "vllm", **{"engine.kind": "vllm"})
    job.wait_for_shards(1, timeout_s=1800)
    killed = job.signal_worker(signal.SIGKILL)
    job.wait_for(lambda: not killed.is_running())
    job.wait_for_shards(job.num_shards + 1, timeout_s=1800)
    job.kill()
    assert job.num_shards < NUM_ROWS // 8, "it was to be killed before its end"
    start(name, tmp_path / "vllm", **{"engine.kind": "vllm"}).finish(timeout_s=1800)

    columns = ("prompt", "prompt_tokens", "answer", "correct", "worker_id", "completion_token_ids")
    by_arena, by_vllm = (rows_of(tmp_path / engine, *columns) for engine in ("arena", "vllm"))
    assert_every_row_once(by_vllm, NUM_ROWS)
    assert [row["prompt"] for row in by_vllm] == [row["prompt"] for row in by_arena]
    pairs = [
        (a, b)
        for a, b in zip(by_arena, by_vllm, strict=True)
        if a["completion_token_ids"] != b["completion_token_ids"]
    ]
    ties = gaps(name, pairs)
    right = [sum(bool(row["correct"]) for row in rows) for rows in (by_arena, by_vllm)]
    num_workers = len({row["worker_id"] for row in by_vllm})
    print(
        f"\n{name}: {NUM_ROWS - len(pairs)} of {NUM_ROWS} rows the same, ties {ties}, right"
        f" (arena, vllm) {right}, rows by {num_workers} workers"
    )
    assert num_workers == 3  # the one that was killed, its successor, and that of the second driver
    assert all(gap < TIE for gap in ties), ties
