"""A model without weights, on the device "meta": its names and shapes, and its own code's
errors."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import PretrainedConfig, PreTrainedModel

from dynts_batch.engine.model.checkpoint.auto_class import auto_class
from dynts_batch.engine.out_of_memory import is_out_of_memory
from dynts_batch.errors import ConfigError

#: What the code of some hundred architectures raises for files that make no sense to it.
MODEL_ERRORS = (
    ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, OSError,
    RuntimeError, StrictDataclassError, TypeError, ValueError,
)  # fmt: skip


def make_skeleton(
    name: str, config: PretrainedConfig, *, trust_remote_code: bool
) -> PreTrainedModel:
    """The model of `config` without weights.

    Raises: ConfigError if transformers cannot make it.
    """
    made_by = auto_class(config)
    assert made_by is not None, type(config)
    with (
        loading_errors(f"model.name: transformers cannot make the model of {name!r}"),
        torch.device("meta"),
    ):
        return made_by.from_config(config, trust_remote_code=trust_remote_code)


@contextmanager
def loading_errors(what: str) -> Iterator[None]:
    """Turn what a model's own code raises into a ConfigError that begins with `what`.

    An error for lack of memory stays as it is.
    """
    try:
        yield
    except ConfigError:
        raise
    except MODEL_ERRORS as error:
        if is_out_of_memory(error):
            raise
        raise ConfigError(f"{what}: {in_words(error)}") from None


def in_words(error: Exception) -> str:
    """One line. Many of these errors are several, or only a key."""
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {line}"
