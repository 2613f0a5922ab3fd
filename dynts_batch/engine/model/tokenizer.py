"""A model's tokenizer. It must be the model's own: a wrong one writes text that the model never
saw."""

from typing import Any

from transformers import AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase

from dynts_batch.engine.model.checkpoint.skeleton import MODEL_ERRORS, in_words
from dynts_batch.engine.model.files import ModelFiles
from dynts_batch.errors import ConfigError

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")


def load_tokenizer(
    name: str, files: ModelFiles, model_config: PretrainedConfig
) -> PreTrainedTokenizerBase:
    """Load the tokenizer.

    Raises: ConfigError if it is missing or damaged, or has more tokens than the model.
    """
    folder = files.folder if files.tokenizer is None else None
    # Without any of these, transformers makes up a tokenizer of the right class without words.
    if folder and not any((folder / file).exists() for file in TOKENIZER_FILES):
        raise ConfigError(
            f"model.name must hold its tokenizer ({', '.join(TOKENIZER_FILES)}), got"
            f" {str(folder)!r} without one"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(**_source(files))
    except MODEL_ERRORS as error:
        key = "name" if files.tokenizer is None else "tokenizer"
        raise ConfigError(
            f"model.{key}: cannot load the tokenizer of {files.tokenizer or name!r}:"
            f" {in_words(error)}"
        ) from None
    # Added tokens do not count: a padding token outside the model's vocabulary is common, and never
    # used.
    if tokenizer.vocab_size > model_config.vocab_size:
        raise ConfigError(
            f"model.name: the tokenizer of {name!r} must have at most the model's"
            f" {model_config.vocab_size} tokens, got {tokenizer.vocab_size}: it belongs to another"
            " model"
        )
    return tokenizer


def _source(files: ModelFiles) -> dict[str, Any]:
    """Arguments of `from_pretrained`: the model's own tokenizer, or the configured one."""
    if files.tokenizer is None:
        return files.source
    return {
        "pretrained_model_name_or_path": files.tokenizer,
        "trust_remote_code": files.trust_remote_code,
    }
