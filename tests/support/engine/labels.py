"""Labels without a model: a directory of traces whose label follows from one hidden coordinate."""

from collections import Counter
from pathlib import Path

import numpy as np

from dynts_batch.training.label_dir import LabelDir, LabelledTrace

HIDDEN_SIZE = 16


def learnable_trace(name: str, num_tokens: int = 200) -> LabelledTrace:
    """Heavy-tailed, as attention is, and with the hidden states of every other token only."""
    rng = np.random.default_rng(list(name.encode()))
    states = rng.standard_normal((num_tokens, HIDDEN_SIZE)).astype(np.float16)
    positions = np.arange(0, num_tokens, 2, dtype=np.int32)
    return LabelledTrace(
        request_id=name,
        sample_index=0,
        prompt_tokens=50 + len(name),
        token_ids=list(range(num_tokens)),
        labels=1e-4 * np.exp(3 * states[:, 3].astype(np.float32)),
        hidden_positions=positions,
        hidden_states=states[positions],
    )


def write_labels(folder: Path, num_traces: int, traces_per_shard: int = 7) -> LabelDir:
    label_dir = LabelDir(str(folder))
    label_dir.create_or_resume(
        {
            "model": "org/model",
            "model_fingerprint": {"revision": "abc", "weights_sha256": "d1ce"},
            "seed": 0,
        }
    )
    traces = [learnable_trace(f"q{index}") for index in range(num_traces)]
    for shard, start in enumerate(range(0, num_traces, traces_per_shard)):
        label_dir.commit_shard(
            shard, traces[start : start + traces_per_shard], Counter({"too odd": 1}), HIDDEN_SIZE
        )
    label_dir.write_manifest()
    return label_dir
