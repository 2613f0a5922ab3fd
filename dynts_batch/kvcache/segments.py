"""The segments of the stored tokens: runs of equal logical length, counted from the first token that may be evicted.

Slots are in ascending position, so a segment's tokens stand side by side, and where all layers and heads keep as many of
each, in the same slots everywhere. Knows nothing about which tokens stay, nor about schedules.
"""

from collections.abc import Callable

import torch

from dynts_batch.kvcache.thoughts import REASONING
from dynts_batch.kvcache.view import Slots


def sizes_and_types(slots: Slots, segment_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Stored tokens, and type, of each segment of each row, int64 [R, segments]: the same in all layers and heads. A
    segment without tokens, or of which nothing is recorded, is REASONING."""
    arena, first = slots.arena, slots.num_first[:, None]
    slot = torch.arange(arena.capacity, device=first.device)
    position = slots.positions[:, 0, 0].masked_fill(slot >= slots.cache_len[:, None], 2**31 - 1)
    num_segments = int((slots.seq_len - slots.num_first).max()) // segment_size + 1
    begins = first + segment_size * torch.arange(num_segments + 1, device=first.device)
    edges = torch.searchsorted(position, begins.int())
    sizes = edges.diff()
    if "thought" not in arena.columns:
        return sizes, torch.full_like(sizes, REASONING)
    types = slots.column("thought")[:, 0, 0].gather(1, edges[:, :-1].clamp(max=arena.capacity - 1))
    return sizes, types.long().masked_fill(sizes == 0, REASONING)


def cut(stays: torch.Tensor, cuts: torch.Tensor, survivors: Callable[..., torch.Tensor]) -> None:
    """Take from `stays` [R, layers, S] what `cuts` [segments, 4] say, but for the survivors."""
    row, start, size, num_kept = cuts.T
    place = torch.arange(int(size.max()), device=cuts.device)
    slot = (start[:, None] + place).clamp(max=stays.shape[-1] - 1)
    kept = stays.new_zeros(len(cuts), stays.shape[1], len(place))
    some = num_kept > 0
    if some.any():
        kept[some] = survivors(row[some], slot[some], size[some], num_kept[some]).to(kept.dtype)
    segment, offset = (place < size[:, None]).nonzero(as_tuple=True)
    stays[row[segment], :, slot[segment, offset]] = kept[segment, :, offset]
