"""Hugging Face `generate` over a load in static batches,
as a user without continuous batching would run it.

Imported in other environments too: see workload.py.
"""

from typing import Any

import torch
from transformers import PreTrainedModel

from dynts_batch.benchmarks.workload import Load


@torch.inference_mode()
def generate_static_batches(
    model: PreTrainedModel, load: Load, cache_implementation: str | None = None
) -> list[list[int]]:
    """Completions in order. A batch is padded on the left and runs until
    its longest completion is done."""
    settings: dict[str, Any] = {"do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    if cache_implementation is not None:
        settings["cache_implementation"] = cache_implementation
    completions: list[list[int]] = []
    for batch in load.batches():
        longest = max(map(len, batch.prompts))
        padding = [longest - len(prompt) for prompt in batch.prompts]
        padded = [[0] * n + prompt for n, prompt in zip(padding, batch.prompts, strict=True)]
        mask = [[0] * n + [1] * (longest - n) for n in padding]
        output = model.generate(
            torch.tensor(padded, device=model.device),
            attention_mask=torch.tensor(mask, device=model.device),
            max_new_tokens=max(batch.num_new_tokens),
            **settings,
        )[:, longest:].tolist()
        completions += [row[:n] for row, n in zip(output, batch.num_new_tokens, strict=True)]
    return completions
