"""Loading takes hardly more memory than the loaded weights, whatever type the files hold."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from dynts_batch.config import ModelConfig
from dynts_batch.engine.model.checkpoint.stored_tensors import stored_tensors
from dynts_batch.engine.model.files import find_files
from dynts_batch.lab.tokenizer import build_tokenizer

_PEAK = """
import sys
from dynts_batch.config import ModelConfig
from dynts_batch.engine.model.loader import load_model
from dynts_batch.engine.model.resolved import resolve_model

def mib(key):
    line = next(line for line in open("/proc/self/status") if line.startswith(key))
    return int(line.split()[1]) / 1024

load_model(resolve_model(ModelConfig(device="cpu")))
for dtype in sys.argv[2:]:
    resolved = resolve_model(ModelConfig(sys.argv[1], dtype=dtype, device="cpu"))
    open("/proc/self/clear_refs", "w").write("5")  # the peak begins anew
    before = mib("VmRSS")
    model = load_model(resolved)
    print(mib("VmHWM") - before)
    del model
"""


def saved(folder: Path, **sizes: int) -> PreTrainedModel:
    tokenizer = build_tokenizer()
    tokenizer.save_pretrained(folder)
    heads = {"num_attention_heads": 8, "num_key_value_heads": 2}
    ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    model = Qwen2ForCausalLM(Qwen2Config(**sizes, **heads, **ids, vocab_size=len(tokenizer)))
    model.save_pretrained(folder, max_shard_size="60MB")
    return model


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="this kernel does not tell peaks"
)
def test_loading_peaks_at_less_than_1_3_times_the_weights(tmp_path: Path) -> None:
    """The story: the whole file stayed mapped beside the packed weights, and plain weights stayed
    until all were packed. So float32 files took five times the weights in bfloat16."""
    model = saved(tmp_path, hidden_size=768, intermediate_size=3072, num_hidden_layers=8)
    weights_mib = sum(weight.nbytes for weight in model.parameters()) / 2**20
    command = [sys.executable, "-c", _PEAK, str(tmp_path), "float32", "bfloat16"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    for peak, size in zip(map(float, printed), (weights_mib, weights_mib / 2), strict=True):
        assert size < peak + 16, "what counts the peak counts the weights"
        assert peak < 1.3 * size + 32


def test_stored_tensors_are_those_that_were_saved_in_shards_too(tmp_path: Path) -> None:
    model = saved(tmp_path, hidden_size=1024, intermediate_size=4096, num_hidden_layers=2)
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    found = stored_tensors(find_files(ModelConfig(str(tmp_path))))
    assert found is not None
    expected = model.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name][...], tensor) for name, tensor in expected.items())
