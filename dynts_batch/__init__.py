"""Batch inference for reasoning models whose KV cache is bounded by eviction.

Nothing is imported here: `import dynts_batch` must stay free of torch, ray and side effects.
"""

__version__ = "0.1.0"
