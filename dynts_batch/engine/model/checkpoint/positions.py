"""Positions that a model looks up in a table. Past its end the worker would die."""

import re
from itertools import chain

from torch import nn
from transformers import PretrainedConfig

from dynts_batch.errors import ConfigError

#: Names of position tables: wpe, embed_positions, position_embeddings, pos_encoding.
_NAME = re.compile(r"(^|\.)(wpe|\w*pos\w*)(\.|$)")
#: Most rows that a table has before its first position.
_MOST_OFFSET = 8


def num_positions(model: nn.Module, config: PretrainedConfig) -> int | None:
    """How many positions the model's table has; None if positions are computed.

    The weights may lack storage.
    """
    size = getattr(config, "max_position_embeddings", None)
    if not isinstance(size, int):
        return None
    for name, tensor in chain(model.named_parameters(), model.named_buffers()):
        is_as_long = tensor.dim() == 2 and 0 <= tensor.shape[0] - size <= _MOST_OFFSET
        if is_as_long and _NAME.search(name):
            return size
    return None


def trained_positions(config: PretrainedConfig) -> int | None:
    """For how many positions a model was trained, or stretched by its RoPE.

    None if its configuration does not say.
    """
    size = getattr(config, "max_position_embeddings", None)
    rope = getattr(config, "rope_parameters", None) or {}
    original, factor = rope.get("original_max_position_embeddings"), rope.get("factor")
    if isinstance(size, int) and isinstance(original, int) and isinstance(factor, int | float):
        return max(size, int(original * factor))
    return size if isinstance(size, int) else None


def check_positions(name: str, positions: int | None, max_new_tokens: int) -> None:
    """Check that the table has a position for a prompt beside the new tokens.

    Raises: ConfigError if not.
    """
    if positions is not None and max_new_tokens >= positions:
        raise ConfigError(
            f"sampling.max_new_tokens must leave room for a prompt in the {positions} positions"
            f" that {name!r} has learned, got {max_new_tokens}"
        )
