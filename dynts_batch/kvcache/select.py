"""Chooses which slots stay, from a policy's scores and counts of protected tokens. Moves nothing.

Axes as in kvcache/__init__.py. On a CPU, C code does it.
"""

import torch

from dynts_batch.kvcache import native
from dynts_batch.kvcache.compaction import SOURCE, in_c


def share_of_candidates(num_candidates: int, keep_ratio: float) -> int:
    """How many of the candidates stay: the share rounded down, and never all of them."""
    return min(int(num_candidates * keep_ratio), num_candidates - 1)


def all_but(num_candidates: int, interval: int) -> int:
    """How many of the candidates stay if `interval` tokens go; none if there are no more
    than that."""
    return max(num_candidates - interval, 0)


def select(
    scores: torch.Tensor,
    cache_len: torch.Tensor,
    num_first: torch.Tensor,
    num_last: torch.Tensor,
    num_kept: torch.Tensor,
) -> torch.Tensor:
    """Which slots stay, bool [R, L or 1, H or 1, C].

    Of each row's `cache_len` slots the `num_first` oldest and the `num_last` newest stay. The slots
    between them are candidates, and the `num_kept` with the highest `scores` [R, L or 1, H or 1, C]
    stay. Scores are floats, and -inf is the least. Of equal scores the older slot wins. All counts
    are int64 [R].
    """
    if scores.dtype == torch.float32 and in_c(scores):
        return _choose(scores.contiguous(), cache_len, num_first, num_last, num_kept)
    slot = torch.arange(scores.shape[-1], device=scores.device)
    by_row = (slice(None), None, None, None)
    is_candidate = (slot >= num_first[by_row]) & (slot < (cache_len - num_last)[by_row])
    is_protected = ~is_candidate & (slot < cache_len[by_row])
    finite = scores.clamp(min=torch.finfo(scores.dtype).min)  # no candidate is behind the others
    order = finite.masked_fill(~is_candidate, -torch.inf).argsort(
        dim=-1, descending=True, stable=True
    )
    rank = torch.empty_like(order).scatter_(-1, order, slot.expand_as(order))
    return is_protected | (is_candidate & (rank < num_kept[by_row]))


def _choose(scores: torch.Tensor, *counts: torch.Tensor) -> torch.Tensor:
    stays = torch.empty(scores.shape, dtype=torch.bool)
    num_rows, num_slots, threads = len(scores), scores.shape[-1], torch.get_num_threads()
    scratch = torch.empty(threads * num_slots, dtype=torch.int32)
    native.function(SOURCE, "choose", "ppppppp" "llll")(
        stays.data_ptr(), scores.data_ptr(), scratch.data_ptr(),
        *(count.data_ptr() for count in counts), num_rows, scores.shape[1:-1].numel(), num_slots,
        threads,
    )  # fmt: skip
    return stays
