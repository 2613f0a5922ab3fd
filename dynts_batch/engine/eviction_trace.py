"""Which tokens of one sequence left the KV cache, and when, for requests that ask for it.

It looks at the kept positions once per eviction, which is once in hundreds of steps. Knows nothing
about policies, nor whether layers and heads keep the same tokens: it counts how many still hold a
token.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from dynts_batch.records import TokenTrace


class EvictionTrace:
    """The record of one sequence, by position. Before its first eviction, every layer and head
    holds a token."""

    def __init__(self) -> None:
        self._evicted_at: list[int | None] = []
        self._kept_share: list[float] = []

    def observe(self, kept_positions: torch.Tensor, num_processed: int) -> None:
        """Note what the eviction after the `num_processed`-th token left.

        `kept_positions` [*granularity, retained_len].
        """
        num_holders = kept_positions[..., 0].numel()
        counts = torch.bincount(kept_positions.flatten(), minlength=num_processed).tolist()
        self._kept_share = [count / num_holders for count in counts]
        self._evicted_at += [None] * (num_processed - len(self._evicted_at))
        for position, count in enumerate(counts):
            if count == 0 and self._evicted_at[position] is None:
                self._evicted_at[position] = num_processed

    def record(self, token_texts: Sequence[str]) -> TokenTrace:
        """What happened to all tokens of the sequence. `token_texts` are their texts."""
        num_unseen = len(token_texts) - len(self._evicted_at)
        return {
            "token_texts": list(token_texts),
            "evicted_at": [*self._evicted_at, *[None] * num_unseen],
            "kept_share": [*self._kept_share, *[1.0] * num_unseen],
        }
