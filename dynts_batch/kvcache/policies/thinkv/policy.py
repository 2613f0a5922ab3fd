"""ThinKV: a thought's kind and age decide how many of its tokens stay, and then which."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import torch

from dynts_batch.errors import ConfigError
from dynts_batch.kvcache.policies import register
from dynts_batch.kvcache.policies.thinkv.annealing import anneal, make_room
from dynts_batch.kvcache.policies.thinkv.clusters import Cut, highest, representatives
from dynts_batch.kvcache.policies.thinkv.segments import Segments, segments_of, staying
from dynts_batch.kvcache.policies.thinkv.thoughts import TRANSITION, Thoughts, sparsity
from dynts_batch.kvcache.policy import Counts, Policy
from dynts_batch.kvcache.view import Row, Slots

SURVIVORS = ("kmeans", "importance")


@register("thinkv")
@dataclass(frozen=True)
class ThinKV(Policy):
    """Cuts the thinking into segments, which lose tokens step by step (arXiv 2510.01290).

    A segment has `segment_size` tokens. null = the paper's 128, but at most an eighth of the
    budget, as it was in the paper. When it ends, the sparsity of attention labels it as a
    transition, reasoning or execution. With each transition every earlier segment steps down once:
    to 64, 32, 16, 8, 4 tokens.

    If there is no room for the next segment, the oldest of the least important type steps down,
    again and again. Transitions are the least important, then executions, then reasoning. Once all
    are at 4 tokens, segments go entirely, in the same order.

    `survivors` says which tokens stay. "kmeans": in each layer the keys nearest the centres of as
    many clusters. "importance": the most important ones by DynTS's predictor, the same in all
    layers. Protected are the prompt (unless `protect_prompt` is false), the segment being written,
    and segments that the window or the answer reaches into. `keep_ratio` and `interval` have no
    effect.

    Not published, and our choice: a row that still fits its budget loses nothing. The steps that
    transitions asked for until then happen when it first does not fit. An eviction makes room to
    the end of the segment being written, so there is at most one per segment.
    """

    segment_size: int | None = None
    """Tokens of a segment of thinking. null = 128, or an eighth of the budget if that is less."""
    survivors: str = "kmeans"
    """Which tokens of a segment stay: `kmeans`, those that stand for the others; `importance`,
    those that `dynts` would keep."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.survivors not in SURVIVORS:
            raise ConfigError(
                f"policy.survivors must be one of {', '.join(SURVIVORS)}, got {self.survivors!r}"
            )
        assert self.budget is not None, "the base class requires a budget"
        has_segment = self.window_size + self.segment_len <= self.budget
        if self.segment_len < 1 or self.longest_prompt(0) < 1 or not has_segment:
            raise ConfigError(
                "policy.segment_size must be at least 1, and policy.budget leave room for the"
                f" window's segments, one more and a prompt, got {self.segment_len}, budget"
                f" {self.budget} and window {self.window_size}"
            )

    @cached_property
    def segment_len(self) -> int:
        """Thinking tokens of a whole segment."""
        assert self.budget is not None, "config.validate() requires a budget"
        return min(128, self.budget // 8) if self.segment_size is None else self.segment_size

    @property
    def requires(self) -> tuple[str, ...]:
        return ("thought",) if self.per_head else ("thought", "importance")

    @property
    def per_head(self) -> bool:
        return self.survivors == "kmeans"

    def counts(self, *, prompt_tokens: int, answer_tokens: int, cache_len: int) -> Counts:
        """The candidates are all tokens from which `stays` cuts whole segments."""
        assert self.budget is not None, "config.validate() requires a budget"
        num_first = min(self.num_protected_first(prompt_tokens), cache_len)
        # Whole segments are protected, and one more has to fit.
        fits = num_first + answer_tokens + 2 * self.segment_len <= self.budget
        num_last = max(self.window_size, answer_tokens if fits else 0)
        num_last = min(num_last, cache_len - num_first)
        return Counts(num_first, num_last, cache_len - num_first - num_last)

    def longest_prompt(self, max_prompt_tokens: int) -> int:
        if not self.protect_prompt:
            return super().longest_prompt(max_prompt_tokens)
        assert self.budget is not None, "config.validate() requires a budget"
        in_window = -(-self.window_size // self.segment_len)
        return self.budget - (1 + in_window) * self.segment_len

    def next_look(self, *, prompt_tokens: int, num_processed: int) -> int:
        """The end of the segment that is written next."""
        num_free = num_processed - self.num_protected_first(prompt_tokens)
        return num_processed + self.segment_len - num_free % self.segment_len

    def relabel(self, slots: Slots) -> Mapping[str, torch.Tensor]:
        thoughts = slots.companion(Thoughts)
        if thoughts is None or not thoughts.layers:
            return {}
        layers = [slots.layer(number) for number in thoughts.layers]
        measured = [sparsity(layer.logits(num_queries=1))[:, 0].double() for layer in layers]
        types = thoughts.classify(torch.stack(measured).mean(dim=0))
        column = slots.column("thought")
        slot = torch.arange(slots.arena.capacity, device=column.device)
        # The segment that has just been written has lost no token.
        is_new = (slot >= (slots.cache_len - self.segment_len)[:, None]) & (
            slot < slots.cache_len[:, None]
        )
        ends = (slots.seq_len - 1 - slots.num_first) % self.segment_len == 0
        is_new &= ends[:, None]
        types = types.to(column.dtype)[:, None, None, None]
        return {"thought": torch.where(is_new[:, None, None], types, column)}

    def stays(self, slots: Slots) -> torch.Tensor:
        cuts = self._cuts(slots)
        survivors = self._survivors(slots, cuts) if cuts else None
        return staying(slots.rows, cuts, survivors, slots.arena.capacity).to(slots.lanes.device)

    def sizes_after(self, row: Row, segments: Segments) -> list[int]:
        """How many tokens of each segment of a row stay, oldest first."""
        assert self.budget is not None, "config.validate() requires a budget"
        if self._is_whole(row):
            return segments.sizes
        sizes, types, num_free = segments.sizes, segments.types, row.num_processed - row.num_first
        has_lost = row.cache_len < row.num_processed
        newest, num_written = num_free // self.segment_len - 1, num_free % self.segment_len
        # Transitions take effect at once, except those that came while the row still fitted its
        # budget.
        asks = [
            kind == TRANSITION and (not has_lost or (index == newest and num_written == 0))
            for index, kind in enumerate(types)
        ]
        asked_later = [*accumulate(reversed(asks), initial=0)][-2::-1]
        end = (num_free - row.num_last) // self.segment_len  # of unprotected segments
        annealed = anneal(sizes[:end], asked_later[:end])
        room = self.segment_len - num_written
        excess = row.num_first + sum(annealed) + sum(sizes[end:]) - (self.budget - room)
        return make_room(annealed, types[:end], excess) + sizes[end:]

    def _is_whole(self, row: Row) -> bool:
        """Whether a row has lost nothing and still fits its budget."""
        return row.num_processed == row.cache_len != self.budget

    def _cuts(self, slots: Slots) -> list[Cut]:
        """The segments that lose tokens."""
        cuts: list[Cut] = []
        if all(self._is_whole(row) for row in slots.rows):
            return cuts
        for number, (row, segments) in enumerate(
            zip(slots.rows, segments_of(slots, self.segment_len), strict=True)
        ):
            starts = accumulate(segments.sizes, initial=row.num_first)
            after = self.sizes_after(row, segments)
            for start, size, num_kept in zip(starts, segments.sizes, after, strict=False):
                if num_kept < size:
                    cuts.append(Cut(number, start, size, num_kept))
        return cuts

    def _survivors(self, slots: Slots, cuts: list[Cut]) -> torch.Tensor:
        """Which tokens of the segments stay, bool [cuts, L or 1, longest size]."""
        if self.survivors == "kmeans":
            return self._representatives(slots, cuts)
        row, start, size, num_kept = torch.tensor(cuts, device=slots.lanes.device).T
        place = torch.arange(max(cut.size for cut in cuts), device=row.device)
        slot = (start[:, None] + place).clamp(max=slots.arena.capacity - 1)
        importance = slots.column("importance")[row[:, None], 0, 0, slot]
        return highest(importance, size, num_kept)[:, None]

    def _representatives(self, slots: Slots, cuts: list[Cut]) -> torch.Tensor:
        rows = sorted({cut.row for cut in cuts})
        num_slots = max(cut.start + cut.size for cut in cuts)
        own = [cut._replace(row=rows.index(cut.row)) for cut in cuts]
        keys = slots.arena.keys_in_place(slots.lanes[rows], num_slots)
        return torch.cat([representatives(*layers, own) for layers in keys], dim=1)
