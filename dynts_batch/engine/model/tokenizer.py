"""A model's tokenizer, which must be the model's own: a wrong one writes text that the model has never seen."""

from transformers import AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase

from dynts_batch.engine.model.files import ModelFiles
from dynts_batch.errors import ConfigError

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")


def load_tokenizer(
    name: str, files: ModelFiles, model_config: PretrainedConfig
) -> PreTrainedTokenizerBase:
    """Raises: ConfigError where it is missing or damaged, or has more tokens than the model."""
    folder = files.folder
    # Without any of these transformers makes up a tokenizer of the right class and no words.
    if folder and not any((folder / file).exists() for file in TOKENIZER_FILES):
        raise ConfigError(
            f"model.name must hold its tokenizer ({', '.join(TOKENIZER_FILES)}), got {str(folder)!r}"
            " without one"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(**files.source)
    except (OSError, ValueError) as error:
        raise ConfigError(f"model.name: cannot load the tokenizer of {name!r}: {error}") from None
    # Without the added ones: a padding token that the model has no place for is common, and never used.
    if tokenizer.vocab_size > model_config.vocab_size:
        raise ConfigError(
            f"model.name: the tokenizer of {name!r} must have at most the model's"
            f" {model_config.vocab_size} tokens, got {tokenizer.vocab_size}: it belongs to another model"
        )
    return tokenizer
