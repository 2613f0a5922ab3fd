"""ThinKV: a thought's kind and age say how much of it stays, and of that the tokens that stand for the others."""

from dataclasses import dataclass
from functools import partial
from itertools import accumulate

import torch

from dynts_batch.errors import ConfigError
from dynts_batch.kvcache.annealing import anneal, make_room
from dynts_batch.kvcache.clusters import highest, representatives
from dynts_batch.kvcache.policies import register
from dynts_batch.kvcache.policy import Counts, Policy
from dynts_batch.kvcache.segments import cut, sizes_and_types
from dynts_batch.kvcache.thoughts import TRANSITION, sparsity
from dynts_batch.kvcache.view import Slots

#: Bytes of keys, in float64, that are clustered at once.
_CHUNK_BYTES = 128 * 2**20
SURVIVORS = ("kmeans", "importance")


@register("thinkv")
@dataclass(frozen=True)
class ThinKV(Policy):
    """Cuts the thinking into segments of `segment_size` tokens, which lose tokens step by step (arXiv 2510.01290); null = the
    paper's 128, but at most an eighth of the budget, as it was in the paper.

    A segment is labelled as it ends, by the sparsity of attention then: a transition, reasoning or execution. With a
    transition every earlier segment steps down once: to 64, 32, 16, 8, 4 tokens. Where there is no room for the next
    segment, the oldest of the least important type (transitions, then executions, then reasoning) steps down, again and
    again; when all have come to 4, they go entirely, in the same order. `survivors`: "kmeans", in each layer those
    nearest the centres of as many clusters of its keys; "importance", those that DynTS's predictor finds most important,
    the same in all layers. The prompt (or nothing), the segment being written, and those that the window or the answer
    reaches into, are protected; `keep_ratio` means nothing.

    Not published and our choice: a row that still fits its budget loses nothing, and what transitions asked for until
    then is made up for when it first does not. An eviction makes room to the end of the segment being written, so that
    there is one for a segment at most.
    """

    segment_size: int | None = None
    survivors: str = "kmeans"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.survivors not in SURVIVORS:
            raise ConfigError(
                f"policy.survivors must be one of {', '.join(SURVIVORS)}, got {self.survivors!r}"
            )
        if self.segment_len < 1 or self.longest_prompt(0) < 1:
            raise ConfigError(
                "policy.segment_size must be at least 1, and policy.budget leave room for the window's segments, one more"
                f" and a prompt, got {self.segment_len}, budget {self.budget} and window {self.window_size}"
            )

    @property
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
        """The candidates here are all that the whole segments of `score` are cut out of."""
        assert self.budget is not None, "config.validate() requires a budget"
        num_first = min(self.num_protected_first(prompt_tokens), cache_len)
        # Whole segments are protected, and a whole one has to fit besides.
        fits = num_first + answer_tokens + 2 * self.segment_len <= self.budget
        num_last = max(self.window_size, answer_tokens if fits else 0)
        num_last = min(num_last, cache_len - num_first)
        return Counts(num_first, num_last, cache_len - num_first - num_last)

    def longest_prompt(self, max_prompt_tokens: int) -> int:
        assert self.budget is not None, "config.validate() requires a budget"
        in_window = -(-self.window_size // self.segment_len)
        room = (1 + in_window) * self.segment_len
        return self.budget - (room if self.protect_prompt else 1)

    def is_due(self, *, prompt_tokens: int, num_processed: int) -> bool:
        num_free = num_processed - self.num_protected_first(prompt_tokens)
        return num_free > 0 and num_free % self.segment_len == 0

    def label(self, slots: Slots) -> torch.Tensor | None:
        if not slots.thoughts.layers:
            return None
        layers = [slots.layer(number) for number in slots.thoughts.layers]
        measured = [sparsity(layer.logits(num_queries=1))[:, 0].double() for layer in layers]
        types = slots.thoughts.classify(torch.stack(measured).mean(dim=0))
        column = slots.column("thought")
        slot = torch.arange(slots.arena.capacity, device=column.device)
        # Of the segment that was written until now no token is missing.
        is_new = (slot >= (slots.cache_len - self.segment_len)[:, None]) & (
            slot < slots.cache_len[:, None]
        )
        ends = (slots.seq_len - 1 - slots.num_first) % self.segment_len == 0
        is_new &= ends[:, None]
        types = types.to(column.dtype)[:, None, None, None]
        return torch.where(is_new[:, None, None], types, column)

    def score(self, slots: Slots) -> torch.Tensor:
        """1 for the slots that stay, 0 for the others."""
        num_layers = slots.arena.shape.granularity[0]
        stays = torch.ones(
            len(slots.lanes), num_layers, slots.arena.capacity, device=slots.lanes.device
        )
        if cuts := self._cuts(slots):
            cut(stays, torch.tensor(cuts, device=stays.device), partial(self._survivors, slots))
        return stays[:, :, None]

    def num_kept(self, slots: Slots, scores: torch.Tensor) -> torch.Tensor:
        return (scores[:, 0, 0].bool() & slots.is_candidate).sum(dim=-1)

    def sizes_after(
        self,
        sizes: list[int],
        types: list[int],
        *,
        cache_len: int,
        num_processed: int,
        num_first: int,
        num_last: int,
    ) -> list[int]:
        """How many tokens of each segment of a row stay, oldest first, of `sizes` [segments] of `types` [segments]."""
        assert self.budget is not None, "config.validate() requires a budget"
        has_lost = cache_len < num_processed
        if not has_lost and cache_len < self.budget:
            return sizes
        num_written = (num_processed - num_first) % self.segment_len
        # What transitions ask for is done at once, but for those that came while the row still fitted its budget.
        newest = (num_processed - num_first) // self.segment_len - 1
        asks = [
            kind == TRANSITION and (not has_lost or (index == newest and num_written == 0))
            for index, kind in enumerate(types)
        ]
        num_free = (num_processed - num_first - num_last) // self.segment_len
        num_steps = [sum(asks[index + 1 :]) for index in range(num_free)]
        annealed = anneal(sizes[:num_free], num_steps) + sizes[num_free:]
        room = self.segment_len - num_written
        excess = num_first + sum(annealed) - (self.budget - room)
        return make_room(annealed[:num_free], types[:num_free], excess) + sizes[num_free:]

    def _cuts(self, slots: Slots) -> list[tuple[int, int, int, int]]:
        """The segments that lose tokens: row, first slot, size, and how many tokens stay."""
        sizes, types = (found.tolist() for found in sizes_and_types(slots, self.segment_len))
        counts = (slots.cache_len, slots.seq_len - 1, slots.num_first, slots.num_last)
        cuts = []
        for row, (cache_len, num_processed, num_first, num_last) in enumerate(
            torch.stack(counts, dim=1).tolist()
        ):
            after = self.sizes_after(
                *(sizes[row], types[row]),
                cache_len=cache_len,
                num_processed=num_processed,
                num_first=num_first,
                num_last=num_last,
            )
            starts = accumulate(sizes[row], initial=num_first)
            for start, size, num_kept in zip(starts, sizes[row], after, strict=False):
                if num_kept < size:
                    cuts.append((row, start, size, num_kept))
        return cuts

    def _survivors(
        self,
        slots: Slots,
        row: torch.Tensor,
        slot: torch.Tensor,
        size: torch.Tensor,
        num_kept: torch.Tensor,
    ) -> torch.Tensor:
        """Which tokens of segments stay, bool [segments, layers or 1, N]; `slot` [segments, N], the others [segments]."""
        if self.survivors == "importance":
            importance = slots.column("importance")[row[:, None], 0, 0, slot]
            return highest(importance, size, num_kept)[:, None]
        shape = slots.arena.shape
        layer_bytes = slot.numel() * shape.num_kv_heads * shape.head_dim * 8
        found = []
        for numbers in torch.arange(shape.num_layers).split(max(1, _CHUNK_BYTES // layer_bytes)):
            layers = [slots.layer(number) for number in numbers.tolist()]
            # Of the KV heads together: [segments, layers, N, K x D].
            keys = torch.stack([x.keys[row[:, None], :, slot].flatten(2) for x in layers], dim=1)
            per_layer = (x.repeat_interleave(len(layers)) for x in (size, num_kept))
            chosen = representatives(keys.flatten(0, 1), *per_layer)
            found.append(chosen.unflatten(0, keys.shape[:2]))
        return torch.cat(found, dim=1)
