"""The segments of the stored tokens: runs of equal logical length, from the first evictable token
on.

Slots are in ascending position, so a segment's tokens are side by side. If all layers and heads
keep equally many of each segment, it has the same slots everywhere. There are few segments, so this
is plain Python except for reading and writing. Knows nothing about which tokens stay, nor about
schedules.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

from dynts_batch.kvcache.policies.thinkv.clusters import Cut
from dynts_batch.kvcache.policies.thinkv.thoughts import REASONING
from dynts_batch.kvcache.view import Row, Slots


@dataclass(frozen=True)
class Segments:
    """How many tokens of each segment of a row are left, oldest first, and the segments' types.

    All layers and heads have the same. A segment without tokens or without a record is REASONING.
    """

    sizes: list[int]
    types: list[int]


def segments_of(slots: Slots, segment_size: int) -> list[Segments]:
    """The segments of each row."""
    positions = slots.arena.positions[:, 0, 0].index_select(0, slots.lanes).tolist()
    thoughts = slots.arena.columns.get("thought")
    recorded = None if thoughts is None else thoughts[:, 0, 0][slots.lanes].tolist()
    found = []
    for number, row in enumerate(slots.rows):
        begins = range(row.num_first, row.num_processed + segment_size, segment_size)
        edges = [bisect_left(positions[number], begin, 0, row.cache_len) for begin in begins]
        sizes = [end - start for start, end in pairwise(edges)]
        types = [REASONING] * len(sizes)
        if recorded is not None:
            types = [
                int(recorded[number][start]) if size else REASONING
                for start, size in zip(edges, sizes, strict=False)
            ]
        found.append(Segments(sizes, types))
    return found


def staying(
    rows: Sequence[Row], cuts: Sequence[Cut], survivors: torch.Tensor | None, capacity: int
) -> torch.Tensor:
    """The slots that stay, bool [R, L or 1, 1, C].

    All slots of `rows` stay, except that of `cuts` only the `survivors` [cuts, L or 1, longest
    size] do. None: there are no cuts.
    """
    num_layers = 1 if survivors is None else survivors.shape[1]
    found = b"" if survivors is None else survivors.cpu().numpy().tobytes()
    longest = 0 if survivors is None else survivors.shape[2]
    stays = bytearray()
    for row in rows:
        stays += (b"\1" * row.cache_len).ljust(capacity, b"\0") * num_layers
    for number, cut in enumerate(cuts):
        for layer in range(num_layers):
            to = (cut.row * num_layers + layer) * capacity + cut.start
            start = (number * num_layers + layer) * longest
            stays[to : to + cut.size] = found[start : start + cut.size]
    return torch.frombuffer(stays, dtype=torch.bool).view(len(rows), num_layers, 1, capacity)
