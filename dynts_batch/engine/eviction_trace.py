"""Which tokens of one sequence left the KV cache, and when: kept for the requests that ask for it.

Costs one look at the kept positions per eviction, which comes once in hundreds of steps, and nothing in between.
Knows nothing about policies, nor whether layers and heads keep the same tokens: it counts who still holds a token.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from dynts_batch.records import TokenTrace


class EvictionTrace:
    """The record of one sequence, by position; tokens that no eviction has seen yet are held by everyone."""

    def __init__(self) -> None:
        self._evicted_at: list[int | None] = []
        self._kept_share: list[float] = []

    def observe(self, kept_positions: torch.Tensor, num_processed: int) -> None:
        """Take note of what an eviction left: `kept_positions` [*granularity, retained_len] after the
        `num_processed`-th token."""
        num_holders = kept_positions[..., 0].numel()
        counts = torch.bincount(kept_positions.flatten(), minlength=num_processed).tolist()
        self._kept_share = [count / num_holders for count in counts]
        self._evicted_at += [None] * (num_processed - len(self._evicted_at))
        for position, count in enumerate(counts):
            if count == 0 and self._evicted_at[position] is None:
                self._evicted_at[position] = num_processed

    def record(self, token_texts: Sequence[str]) -> TokenTrace:
        """What happened to the tokens of the whole sequence, whose texts are `token_texts`."""
        num_unseen = len(token_texts) - len(self._evicted_at)
        return {
            "token_texts": list(token_texts),
            "evicted_at": [*self._evicted_at, *[None] * num_unseen],
            "kept_share": [*self._kept_share, *[1.0] * num_unseen],
        }
