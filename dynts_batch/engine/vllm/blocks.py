"""How many bytes of vLLM's paged KV cache each sequence holds, read from vLLM's scheduler.

A group of layers has blocks of one size, in tokens and in bytes. Layers with sliding windows and
states give blocks back while a sequence runs. So its peak is found by looking after each step. The
scheduler's parts are private to vLLM; `library.py` names the releases that they were read in.
"""

from dataclasses import dataclass
from math import ceil, inf
from typing import Any

from dynts_batch.engine.vllm.library import import_vllm


@dataclass(slots=True)
class Held:
    """By one sequence, over all its steps so far."""

    peak_bytes: int = 0
    num_preemptions: int = 0
    dropped_tokens: int = 0
    """Tokens whose keys and values were lost when it was preempted."""
    _stored: int = 0

    def observe(self, num_tokens: int, num_bytes: int, num_preemptions: int) -> None:
        """It has stored `num_tokens` after a step, in `num_bytes`."""
        if num_preemptions > self.num_preemptions:
            self.num_preemptions = num_preemptions
            self.dropped_tokens += self._stored
        self._stored = num_tokens
        self.peak_bytes = max(self.peak_bytes, num_bytes)


@dataclass(frozen=True, slots=True)
class Group:
    """Layers whose blocks are given and taken together."""

    block_tokens: int
    block_bytes: int
    """Of all its layers, on all ranks."""
    reach: float | None
    """How many tokens back its layers look: infinite if they keep all, None if a state replaces
    them."""

    def num_blocks(self, num_tokens: int) -> float:
        """How many blocks hold what `num_tokens` need. The last block counts by the part in use."""
        return 1.0 if self.reach is None else min(num_tokens, self.reach) / self.block_tokens


class PagedCache:
    """The block pool of an engine in this process; `num_ranks` GPUs hold a part of each block."""

    def __init__(self, scheduler: Any, num_ranks: int) -> None:
        self._scheduler = scheduler
        self.num_bytes, self._groups = _read(scheduler.kv_cache_config, num_ranks)

    @property
    def num_running(self) -> int:
        return len(self._scheduler.running)

    @property
    def num_waiting(self) -> int:
        return self._scheduler.get_request_counts()[1]

    @property
    def stored_tokens(self) -> int:
        return sum(request.num_computed_tokens for request in self._scheduler.running)

    def running(self) -> set[str]:
        """Ids, as vLLM gave them, of the sequences that a step computes."""
        return {request.request_id for request in self._scheduler.running}

    def observe(self, held: dict[str, Held]) -> None:
        """Note, after a step, what each of the sequences in `held`, by vLLM's id, holds now."""
        for name, its in held.items():
            request = self._scheduler.requests.get(name)
            if request is not None:
                num_bytes = self._bytes_of(name) if request.num_computed_tokens else 0
                its.observe(request.num_computed_tokens, num_bytes, request.num_preemptions)

    def peak_bytes(self, held: Held, num_tokens: int) -> int:
        """The peak of a sequence that ended with `num_tokens` stored. It counts the last step,
        whose blocks were free before one could look."""
        last = sum(group.block_bytes * ceil(group.num_blocks(num_tokens)) for group in self._groups)
        return max(held.peak_bytes, last)

    def token_bytes(self, num_tokens: int) -> int:
        """Bytes of `num_tokens` stored tokens, without the unused rest of their last blocks."""
        return round(sum(g.block_bytes * g.num_blocks(num_tokens) for g in self._groups))

    def _bytes_of(self, name: str) -> int:
        blocks = self._scheduler.kv_cache_manager.get_blocks(name).blocks
        return sum(
            group.block_bytes * sum(not block.is_null for block in its)
            for group, its in zip(self._groups, blocks, strict=True)
        )


def _read(config: Any, num_ranks: int) -> tuple[int, list[Group]]:
    """Bytes of the pool, and its groups, from vLLM's KVCacheConfig."""
    num_bytes = sum(tensor.size for tensor in config.kv_cache_tensors) * num_ranks
    groups = config.kv_cache_groups
    if len(groups) == 1:  # of layers whose parts of a block may differ in size
        sizes = [num_bytes // config.num_blocks]
    else:
        sizes = [g.kv_cache_spec.page_size_bytes * len(g.layer_names) * num_ranks for g in groups]
    return num_bytes, [
        Group(g.kv_cache_spec.block_size, size, _reach(g.kv_cache_spec))
        for g, size in zip(groups, sizes, strict=True)
    ]


def _reach(spec: Any) -> float | None:
    if isinstance(spec, import_vllm("vllm.v1.kv_cache_interface").FullAttentionSpec):
        return inf
    return getattr(spec, "sliding_window", None) or getattr(spec, "attention_chunk_size", None)
