"""What identifies a model: two runs with the same identity, policy, sampling and input write the same rows, as far as a batch of
another size rounds alike: in float32 on a CPU.

Owns the digests of configuration, chat template, predictor and calibration, and what older versions wrote for the same; knows
the think tags. Loads no weights. Contents are digested, never where they lie nor what a file's header says of its making.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase

from dynts_batch.config import ModelConfig
from dynts_batch.engine.model.files import model_id, model_path
from dynts_batch.engine.model.loader import predictor_path, thoughts_path
from dynts_batch.engine.model.think_tags import find_think_tags
from dynts_batch.errors import ConfigError
from dynts_batch.kvcache.model_id import ModelId
from dynts_batch.kvcache.predictor import load_predictor

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
#: What a configuration holds beside the model: where it was read, and by whom it was written.
_NOT_THE_MODEL = {"_name_or_path", "transformers_version"}
#: Files of the embedded model that were shipped under another header before, by the digests of their tensors.
_SHIPPED_AS = {
    "6fc8ee5693f8180ae56672cd5d0d78ef5c8646489ffc26213de35d6bf99a4823": "e96bc4615a67f1fd3eecc422fbfa19c6543d842ee697c4a0a9ed8fcd920cc651",
    "3a2129fc410988dde1b6d6fb0891888c2bdcacd7fa22ab5006d9dfea62c1ef94": "1c5aecf51e0b729f002fc6ea4df56302139736524911c586e9bab585f9d98662",
}


def model_identity(
    config: ModelConfig,
    model_config: PretrainedConfig,
    dtype: torch.dtype,
    *,
    needs_predictor: bool,
    needs_thoughts: bool,
) -> dict[str, Any]:
    """The identity, as JSON data, of a model that is `pinned`.

    Raises: ConfigError where weights or tokenizer are missing or damaged, think tags that the tokenizer cannot write, or a
    predictor or a calibration of thoughts that is needed and missing.
    """
    known, tokenizer = model_id(config), _tokenizer(config, model_config)
    return {
        "name": config.name,
        "revision": known.revision,
        "dtype": str(dtype).removeprefix("torch."),
        # The embedded model's comes with its weights.
        "config_sha256": None if config.name == "embedded" else _config_sha256(model_config),
        "weights_sha256": known.weights_sha256,
        "chat_template_sha256": _chat_template_sha256(tokenizer),
        "think_tags": list(find_think_tags(tokenizer, config.think_tags)),
        # The content, not the path: another predictor under the same name keeps other tokens.
        "predictor_sha256": (
            _predictor_sha256(config, known, model_config.hidden_size) if needs_predictor else None
        ),
        "thoughts_sha256": _tensors_sha256(thoughts_path(config)) if needs_thoughts else None,
    }


def in_todays_words(
    stored: Mapping[str, Any],
    today: Mapping[str, Any],
    config: ModelConfig,
    model_config: PretrainedConfig,
) -> dict[str, Any]:
    """The identity `stored`, with the value of `today`'s wherever an older version wrote another one for the same.

    `config` is not `pinned`: a hub model's revision stood there as it was set.
    """
    former: dict[str, list[str | None]] = {
        "revision": [config.revision],
        "config_sha256": [_sha256(model_config.to_json_string(use_diff=False))],
    }
    if config.name == "embedded":  # digested with the folder of the installation
        former["config_sha256"].append(stored.get("config_sha256"))
    for key, path_of in (("predictor_sha256", predictor_path), ("thoughts_sha256", thoughts_path)):
        if digest := today.get(key):
            former[key] = [_sha256(path_of(config).read_bytes()), _SHIPPED_AS.get(digest, digest)]
    return {
        key: today.get(key) if value in former.get(key, []) else value
        for key, value in stored.items()
    }


def _tokenizer(config: ModelConfig, model_config: PretrainedConfig) -> PreTrainedTokenizerBase:
    folder = Path(model_path(config.name))
    # Without any of these transformers makes up a tokenizer of the right class and no words.
    if folder.is_dir() and not any((folder / name).exists() for name in _TOKENIZER_FILES):
        raise ConfigError(
            f"model.name must hold its tokenizer ({', '.join(_TOKENIZER_FILES)}), got {str(folder)!r}"
            " without one"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            model_path(config.name),
            revision=config.revision,
            trust_remote_code=config.trust_remote_code,
        )
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"model.name: cannot load the tokenizer of {config.name!r}: {error}"
        ) from None
    # Without the added ones: a padding token that the model has no place for is common, and never used.
    if tokenizer.vocab_size > model_config.vocab_size:
        raise ConfigError(
            f"model.name: the tokenizer of {config.name!r} must have at most the model's"
            f" {model_config.vocab_size} tokens, got {tokenizer.vocab_size}: it belongs to another model"
        )
    return tokenizer


def _chat_template_sha256(tokenizer: PreTrainedTokenizerBase) -> str | None:
    template = tokenizer.chat_template
    return None if template is None else _sha256(str(template))


def _predictor_sha256(config: ModelConfig, known: ModelId, hidden_size: int) -> str:
    path = predictor_path(config)
    load_predictor(path, model=known, hidden_size=hidden_size)  # it may be refused
    return _tensors_sha256(path)


def _config_sha256(model_config: PretrainedConfig) -> str:
    settings = json.loads(
        model_config.to_json_string(use_diff=False),
        object_hook=lambda group: {k: group[k] for k in group.keys() - _NOT_THE_MODEL},
    )
    return _sha256(json.dumps(settings, sort_keys=True))


def _tensors_sha256(path: Path) -> str:
    """Of names, types, shapes and values; which model a file is for was checked when it was read."""
    digest = hashlib.sha256()
    for name, tensor in sorted(load_file(path).items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _sha256(content: str | bytes) -> str:
    data = content.encode() if isinstance(content, str) else content
    return hashlib.sha256(data).hexdigest()
