"""The engine: continuous batching of a Hugging Face decoder over a bounded KV arena. Works without
Ray."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dynts_batch.engine.engine import Engine

__all__ = ["Engine"]


def __getattr__(name: str) -> Any:
    """`Engine`, on first use.

    Importing torch and transformers takes seconds, and the checks before a run need neither.
    """
    if name != "Engine":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from dynts_batch.engine.engine import Engine

    return Engine
