"""The engine: continuous batching of a Hugging Face decoder over a bounded KV arena. Works without Ray."""

from dynts_batch.engine.engine import Engine

__all__ = ["Engine"]
