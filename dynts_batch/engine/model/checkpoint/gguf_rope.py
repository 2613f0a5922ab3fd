"""The scaling of RoPE that a GGUF file states.

transformers 5.24 reads it for gpt-oss alone. Of any other file it makes a model without, and says
nothing (findings/transformers-drops-the-rope-scaling-that-a-gguf-states.sh).
"""

import copy
import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import PretrainedConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from dynts_batch.errors import ConfigError

#: Names of what scales, and how far into a file they may stand: what comes first is names and the
#: vocabulary. Reading all of that with `gguf` takes seconds, and few files need it.
_MARKS = (b".rope.scal", b"rope_freqs.", b"rope_factors_")
_HEAD_BYTES = 2**26
#: Llama 3.1 to 3.3 differ in the factor alone, and it is the largest number of `rope_freqs`.
_LLAMA3 = {
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
_OWN_KEYS = {"type", "factor", "original_context_length", "finetuned"}


def restore_rope(file: Path, config: PretrainedConfig) -> None:
    """Give `config`, as transformers has read it from `file`, the scaling that `file` states.

    Raises: ConfigError if it is none that can be told from the file.
    """
    if config.model_type == "gpt_oss" or not _has_marks(file):
        return
    scaling = _scaling(file, config)
    rope = config.rope_parameters
    # Where layers differ, the scaling is of those that look at everything.
    own = rope.get("full_attention", rope)
    own |= scaling


def _has_marks(file: Path) -> bool:
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return any(data.find(mark, 0, _HEAD_BYTES) >= 0 for mark in _MARKS)


def _scaling(file: Path, config: PretrainedConfig) -> dict[str, Any]:
    """Entries of transformers' `rope_parameters`; none if nothing is scaled."""
    from gguf import GGUFReader

    reader = GGUFReader(file)
    start = f"{reader.fields['general.architecture'].contents()}.rope."
    stated = {
        name.removeprefix(f"{start}scaling."): field.contents()
        for name, field in reader.fields.items()
        if name.startswith(f"{start}scaling.")
    }
    if (old := reader.fields.get(f"{start}scale_linear")) is not None:  # of files of 2023
        stated.setdefault("factor", old.contents())
    tensors = {tensor.name: tensor.data for tensor in reader.tensors}
    # Without a type llama.cpp scales by the factor, and takes 0 for none.
    kind, factor = stated.get("type", "linear"), stated.get("factor") or 1.0
    is_plain = kind == "none" or (kind in ("linear", "yarn") and factor == 1)
    by_length = [name for name in tensors if name.startswith("rope_factors_")]
    if by_length or not stated.keys() <= _OWN_KEYS:
        raise _refusal(file, stated | dict.fromkeys(by_length, "too"))
    factors = tensors.get("rope_freqs.weight")
    if is_plain:
        return {} if factors is None else _llama3(file, torch.tensor(factors), config)
    if factors is not None:
        raise _refusal(file, {**stated, "rope_freqs": "too"})
    if kind == "linear":
        return {"rope_type": "linear", "factor": factor}
    if kind == "yarn" and "original_context_length" in stated:
        original = stated["original_context_length"]
        return {
            "rope_type": "yarn",
            "factor": factor,
            "original_max_position_embeddings": original,
        }
    raise _refusal(file, stated)


def _llama3(file: Path, factors: torch.Tensor, config: PretrainedConfig) -> dict[str, Any]:
    """That of Llama 3.1 to 3.3, if it gives `factors` [head_dim / 2]: plain frequencies over scaled
    ones."""
    if (factors == 1).all():
        return {}
    found = {"rope_type": "llama3", "factor": factors.max().item(), **_LLAMA3}
    scaled = copy.deepcopy(config)
    scaled.rope_parameters |= found
    frequencies, _ = ROPE_INIT_FUNCTIONS["llama3"](scaled, torch.device("cpu"))
    plain = scaled.rope_parameters["rope_theta"] ** -torch.arange(0, 1, 1 / len(factors))
    is_llama3 = frequencies.shape == factors.shape
    if not is_llama3 or not torch.allclose(plain / frequencies, factors, rtol=1e-3):
        raise _refusal(file, {"rope_freqs": "other numbers than Llama 3.1's"})
    return found


def _refusal(file: Path, stated: Mapping[str, Any]) -> ConfigError:
    told = ", ".join(f"{name} {value}" for name, value in stated.items())
    return ConfigError(
        f"model.name: {str(file)!r} scales RoPE in a way that is not read from a GGUF file"
        f" ({told}). Take the model's safetensors"
    )
