"""Which tokens of one sequence left the KV cache, and when, for requests that ask for it.

It looks at the kept positions once per eviction. Knows nothing about policies, nor whether layers
and heads keep the same tokens: it counts how many still hold a token.
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
        self._half_evicted_at: list[int | None] = []
        self._kept_share: list[float] = []
        self._retained_len: dict[int, int] = {}

    def observe(self, kept_positions: torch.Tensor, num_processed: int) -> None:
        """Note what the eviction after the `num_processed`-th token left.

        `kept_positions` [*granularity, retained_len].
        """
        num_holders = kept_positions[..., 0].numel()
        counts = torch.bincount(kept_positions.flatten(), minlength=num_processed).tolist()
        self._kept_share = [num / num_holders for num in counts]
        self._retained_len[num_processed] = kept_positions.shape[-1]
        for times, least in ((self._evicted_at, 1), (self._half_evicted_at, num_holders / 2)):
            times += [None] * (num_processed - len(times))
            for position, num in enumerate(counts):
                if num < least and times[position] is None:
                    times[position] = num_processed

    def record(self, token_texts: Sequence[str]) -> TokenTrace:
        """What happened to all tokens of the sequence. `token_texts` are their texts."""
        unseen = [None] * (len(token_texts) - len(self._evicted_at))
        return {
            "token_texts": list(token_texts),
            "evicted_at": [*self._evicted_at, *unseen],
            "half_evicted_at": [*self._half_evicted_at, *unseen],
            "kept_share": [*self._kept_share, *(1.0 for _ in unseen)],
            "stored_len": self._stored_len(len(token_texts)),
        }

    def _stored_len(self, num_tokens: int) -> list[int]:
        found: list[int] = []
        stored = 0
        for num_processed in range(1, num_tokens):
            stored = self._retained_len.get(num_processed, stored + 1)
            found.append(stored)
        return [*found, stored][:num_tokens]
