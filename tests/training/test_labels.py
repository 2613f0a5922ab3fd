"""Labels against their definition: full attention matrices in float32,
from the model's own eager attention."""

import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_models import ARCHITECTURES
from transformers import AutoModelForCausalLM

from dynts_batch.config import ModelConfig
from dynts_batch.engine.model.loader import load_model
from dynts_batch.engine.model.resolved import resolve_model
from dynts_batch.kvcache import probs
from dynts_batch.training.labels import label_trace
from dynts_batch.training.traces import Trace


def random_trace(seed: int, thinking: int = 50) -> Trace:
    rng = random.Random(seed)
    parts = [[rng.randrange(7, 700) for _ in range(length)] for length in (9, thinking, 21)]
    return Trace("a", 0, *parts)


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
    found, states = label_trace(load_model(resolve_model(ModelConfig(name=str(folder)))), trace)
    torch.testing.assert_close(found, expected[9 : 9 + 50], atol=1e-5, rtol=0)
    torch.testing.assert_close(
        states, output.hidden_states[-1][0, 9 : 9 + 50], atol=1e-4, rtol=1e-4
    )


_PEAK = """
import sys, torch
from dynts_batch.config import ModelConfig
from dynts_batch.engine.model.loader import load_model
from dynts_batch.engine.model.resolved import resolve_model
from dynts_batch.training.labels import label_trace
from dynts_batch.training.traces import Trace

torch.set_num_threads(1)
model = load_model(resolve_model(ModelConfig(name=sys.argv[1])))

def peak_kib():
    return int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1])

def label(length):
    label_trace(model, Trace("a", 0, [9] * 8, [10] * (length - 108), [11] * 100))

label(256)
before = peak_kib()
label(int(sys.argv[2]))
print(peak_kib() - before)
"""


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's peak memory")
def test_memory_grows_linearly_with_the_trace(tiny_model_dirs: dict[str, Path]) -> None:
    """Peak resident memory of a process of its own, over what a short trace took; an N x N matrix
    would grow 16 times from 2k to 8k, and in float32 take 1 GiB a layer at 8k."""
    folder, lengths = str(tiny_model_dirs["llama"]), (1024, 2048, 4096, 8192)
    peaks = []
    for length in lengths:
        command = [sys.executable, "-c", _PEAK, folder, str(length)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout))
    assert peaks[3] < 8 * peaks[1], dict(zip(lengths, peaks, strict=True))
    assert peaks[3] < 400 * 1024, "the chunk of rows (64 MiB) twice or thrice, and activations"
