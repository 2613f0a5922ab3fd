"""A model without weights, on the device "meta": its names and shapes, and what its own code says against its configuration."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import PretrainedConfig, PreTrainedModel

from dynts_batch.engine.model.checkpoint.auto_class import auto_class
from dynts_batch.engine.out_of_memory import is_out_of_memory
from dynts_batch.errors import ConfigError

#: What the code of some hundred architectures raises about files that it cannot make sense of.
MODEL_ERRORS = (
    ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, OSError, RuntimeError, StrictDataclassError,
    TypeError, ValueError,
)  # fmt: skip


def make_skeleton(
    name: str, config: PretrainedConfig, *, trust_remote_code: bool
) -> PreTrainedModel:
    """Raises: ConfigError where transformers cannot make such a model."""
    made_by = auto_class(config)
    assert made_by is not None, type(config)
    with (
        loading_errors(f"model.name: transformers cannot make the model of {name!r}"),
        torch.device("meta"),
    ):
        return made_by.from_config(config, trust_remote_code=trust_remote_code)


@contextmanager
def loading_errors(what: str) -> Iterator[None]:
    """What a model's own code raises is a ConfigError that begins with `what`, but for memory that ran out."""
    try:
        yield
    except ConfigError:
        raise
    except MODEL_ERRORS as error:
        if is_out_of_memory(error):
            raise
        raise ConfigError(f"{what}: {in_words(error)}") from None


def in_words(error: Exception) -> str:
    """One line: many of these errors are several, or nothing but a key."""
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {line}"
