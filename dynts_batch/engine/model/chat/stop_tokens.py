"""The tokens that end a completion: those that the model's files name, and what its template
writes."""

from collections.abc import Set
from typing import Any

from transformers import GenerationConfig, PretrainedConfig, PreTrainedTokenizerBase

from dynts_batch.engine.model.chat.template import ChatTemplate
from dynts_batch.engine.model.files import ModelFiles
from dynts_batch.engine.model.think_tags import ThinkTags
from dynts_batch.errors import ConfigError


def find_stop_token_ids(
    name: str,
    files: ModelFiles,
    checkpoint: PretrainedConfig,
    tokenizer: PreTrainedTokenizerBase,
    tags: ThinkTags,
    chat: ChatTemplate | None,
) -> frozenset[int]:
    """Stop tokens of generation_config.json, of the tokenizer, and the one after an assistant's
    turn.

    A fine-tune often ends its turns with another token than its base model ends a text.

    Raises: ConfigError if there is none, or if a named token is no token.
    """
    named = named_stop_tokens(files, checkpoint, tokenizer)
    ids: set[int] = set()
    for place, found in named.items():
        listed = found if isinstance(found, list | tuple) else [found]
        if any(type(token_id) is not int or token_id < 0 for token_id in listed):
            raise ConfigError(
                f"model.name: {place} of {name!r} must be a token id or a list of them, got"
                f" {found!r}"
            )
        ids.update(listed)
    ids |= _turn_end(tokenizer, tags, chat)
    # A token outside the model's vocabulary is never written.
    ids &= set(range(checkpoint.get_text_config(decoder=True).vocab_size))
    if not ids:
        raise ConfigError(
            f"model.name: {name!r} must say which token ends a text, got none of its vocabulary as"
            " eos_token_id in generation_config.json or config.json, as the tokenizer's eos_token"
            " or from its chat template"
        )
    return frozenset(ids)


def former_stop_token_ids(
    files: ModelFiles, checkpoint: PretrainedConfig, tokenizer: PreTrainedTokenizerBase
) -> list[int]:
    """The stop tokens of earlier versions, whose runs do not record them."""
    for found in named_stop_tokens(files, checkpoint, tokenizer).values():
        return sorted([found] if isinstance(found, int) else found)
    return []


def named_stop_tokens(
    files: ModelFiles, checkpoint: PretrainedConfig, tokenizer: PreTrainedTokenizerBase
) -> dict[str, Any]:
    """The tokens that a model's files name, by where they name them, without nulls."""
    try:
        if files.gguf is not None:  # files beside a GGUF may belong to another model
            raise OSError
        generation_config = GenerationConfig.from_pretrained(files.path, revision=files.revision)
    except OSError:  # many models have none
        generation_config = GenerationConfig.from_model_config(checkpoint)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"model.name: generation_config.json cannot be read: {error}") from None
    named = {
        "eos_token_id": generation_config.eos_token_id,
        "the tokenizer's eos_token": tokenizer.eos_token_id,
    }
    return {place: found for place, found in named.items() if found is not None}


def _turn_end(
    tokenizer: PreTrainedTokenizerBase, tags: ThinkTags, chat: ChatTemplate | None
) -> Set[int]:
    """The token right after the text of an assistant's last turn, if no text can contain it."""
    after = "" if chat is None else chat.after_assistant().lstrip()
    token_ids = tokenizer.encode(after, add_special_tokens=False)[:1] if after else []
    special = {
        token_id for token_id, token in tokenizer.added_tokens_decoder.items() if token.special
    }
    # In gpt-oss the token that ends a message also ends the thinking.
    written_by_tags = {
        token_id for tag in tags for token_id in tokenizer.encode(tag, add_special_tokens=False)
    }
    return set(token_ids) & special - written_by_tags
