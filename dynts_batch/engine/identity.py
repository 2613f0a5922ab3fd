"""What identifies a model: two runs with the same identity, sampling and input write the same rows.

Owns the digests of configuration, weights, chat template, predictor and calibration, and knows the think tags. Loads no weights.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase

from dynts_batch.config import ModelConfig
from dynts_batch.engine.loader import model_path, predictor_path, thoughts_path
from dynts_batch.engine.think_tags import find_think_tags
from dynts_batch.errors import ConfigError
from dynts_batch.kvcache.predictor import load_predictor

#: Of a file of weights, this many pieces of this size are read, spread evenly: a 70B model is identified in a second,
#: and training moves every piece.
NUM_PIECES, PIECE_BYTES = 64, 2**16
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")


def model_identity(
    config: ModelConfig,
    model_config: PretrainedConfig,
    dtype: torch.dtype,
    *,
    needs_predictor: bool,
    needs_thoughts: bool,
) -> dict[str, Any]:
    """The identity, as JSON data.

    Raises: ConfigError where weights or tokenizer are missing or damaged, think tags that the tokenizer cannot write, or a
    predictor or a calibration of thoughts that is needed and missing.
    """
    tokenizer = _tokenizer(config, model_config)
    return {
        "name": config.name,
        # A branch moves on; the commit it stood for when the run began does not.
        "revision": getattr(model_config, "_commit_hash", None) or config.revision,
        "dtype": str(dtype).removeprefix("torch."),
        "config_sha256": _sha256(model_config.to_json_string(use_diff=False)),
        "weights_sha256": _weights_sha256(Path(model_path(config.name))),
        "chat_template_sha256": _chat_template_sha256(tokenizer),
        "think_tags": list(find_think_tags(tokenizer, config.think_tags)),
        # The content, not the path: another predictor under the same name keeps other tokens.
        "predictor_sha256": _predictor_sha256(config, model_config) if needs_predictor else None,
        "thoughts_sha256": _file_sha256(thoughts_path(config)) if needs_thoughts else None,
    }


def _weights_sha256(folder: Path) -> str | None:
    """Of names, sizes and samples of the weights in a local folder; None for a model on the hub, whose commit says it."""
    if not folder.is_dir():
        return None
    digest = hashlib.sha256()
    paths = sorted(folder.glob("model*.safetensors"))
    if not paths:
        raise ConfigError(
            f"model.name must hold its weights as model*.safetensors, got {str(folder)!r} without one"
        )
    for path in paths:
        try:
            with safe_open(path, framework="pt"):  # reads the header, which knows the file's size
                pass
        except (OSError, SafetensorError) as error:
            raise ConfigError(f"model.name: {str(path)!r} is damaged: {error}") from None
        digest.update(f"{path.name} {path.stat().st_size}".encode())
        for piece in _pieces(path):
            digest.update(piece)
    return digest.hexdigest()


def _pieces(path: Path) -> Iterator[bytes]:
    size = path.stat().st_size
    if size <= NUM_PIECES * PIECE_BYTES:
        yield path.read_bytes()
        return
    with path.open("rb") as file:
        for index in range(NUM_PIECES):  # the first holds the header, the last the file's end
            file.seek((size - PIECE_BYTES) * index // (NUM_PIECES - 1))
            yield file.read(PIECE_BYTES)


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


def _predictor_sha256(config: ModelConfig, model_config: PretrainedConfig) -> str:
    path = predictor_path(config)
    load_predictor(
        path, model=config.name, hidden_size=model_config.hidden_size
    )  # it may be refused
    return _file_sha256(path)


def _file_sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
