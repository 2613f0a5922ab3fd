"""Labels against their definition: full attention matrices in float32, from the model's own eager attention."""

import random
from pathlib import Path

import pytest
import torch
from tiny_models import ARCHITECTURES
from transformers import AutoModelForCausalLM

from dynts_batch.config import ModelConfig
from dynts_batch.engine.loader import load_model
from dynts_batch.kvcache import probs
from dynts_batch.training.labels import label_trace
from dynts_batch.training.traces import Trace


def random_trace(seed: int, thinking: int = 50) -> Trace:
    rng = random.Random(seed)
    parts = [[rng.randrange(7, 700) for _ in range(length)] for length in (9, thinking, 21)]
    return Trace("a", *parts)


@pytest.mark.parametrize("chunk_bytes", [1, 64 * 2**20])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_labels_equal_the_full_attention_definition(
    architecture: str,
    chunk_bytes: int,
    tiny_model_dirs: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(probs, "CHUNK_BYTES", chunk_bytes)
    folder, trace = tiny_model_dirs[architecture], random_trace(1)
    reference = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    with torch.no_grad():
        output = reference(
            torch.tensor([trace.token_ids]), output_attentions=True, output_hidden_states=True
        )
    answer = slice(9 + 50, None)
    expected = torch.stack(
        [layer[0, :, answer].mean(dim=(0, 1)) for layer in output.attentions]
    ).mean(dim=0)
    labelled = label_trace(load_model(ModelConfig(name=str(folder))), trace)
    torch.testing.assert_close(labelled.labels, expected[9 : 9 + 50], atol=1e-5, rtol=0)
    hidden_states = output.hidden_states[-1][0, 9 : 9 + 50]
    torch.testing.assert_close(labelled.hidden_states, hidden_states, atol=1e-4, rtol=1e-4)
