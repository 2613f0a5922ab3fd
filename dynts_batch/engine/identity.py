"""What identifies a model: two runs with the same identity, policy, sampling and input write the same rows, as far as a batch of
another size rounds alike: in float32 on a CPU.

Owns the digests of configuration, chat template, predictor and calibration, and knows the think tags. Loads no weights.
"""

import hashlib
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase

from dynts_batch.config import ModelConfig
from dynts_batch.engine.loader import predictor_path, thoughts_path
from dynts_batch.engine.model_files import model_id, model_path
from dynts_batch.engine.think_tags import find_think_tags
from dynts_batch.errors import ConfigError
from dynts_batch.kvcache.model_id import ModelId
from dynts_batch.kvcache.predictor import load_predictor

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")


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
        "config_sha256": _sha256(model_config.to_json_string(use_diff=False)),
        "weights_sha256": known.weights_sha256,
        "chat_template_sha256": _chat_template_sha256(tokenizer),
        "think_tags": list(find_think_tags(tokenizer, config.think_tags)),
        # The content, not the path: another predictor under the same name keeps other tokens.
        "predictor_sha256": (
            _predictor_sha256(config, known, model_config.hidden_size) if needs_predictor else None
        ),
        "thoughts_sha256": _file_sha256(thoughts_path(config)) if needs_thoughts else None,
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
    return _file_sha256(path)


def _file_sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
