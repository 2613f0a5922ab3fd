"""What sequences hold of vLLM's paged KV cache, read from its scheduler, whose parts are private to vLLM.

A group of layers has blocks of the same number of tokens, and a block of it the same bytes. Sliding windows and states give
blocks back while a sequence runs, so what it held at most is found by looking after each step.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dynts_batch.engine.vllm.library import import_vllm


@dataclass(slots=True)
class Held:
    """By one sequence, over all steps so far."""

    peak_tokens: int = 0
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
        self.peak_tokens = max(self.peak_tokens, num_tokens)
        self.peak_bytes = max(self.peak_bytes, num_bytes)


class PagedCache:
    """The block pool of an engine in this process; `num_ranks` GPUs hold a part of each block."""

    def __init__(self, scheduler: Any, num_ranks: int) -> None:
        self._scheduler, self._num_ranks = scheduler, num_ranks
        config = scheduler.kv_cache_config
        self.num_bytes = sum(tensor.size for tensor in config.kv_cache_tensors) * num_ranks
        self._keeps_all = import_vllm("vllm.v1.kv_cache_interface").FullAttentionSpec
        self._specs = [group.kv_cache_spec for group in config.kv_cache_groups]
        self._block_bytes = [
            group.kv_cache_spec.page_size_bytes * len(group.layer_names) * num_ranks
            for group in config.kv_cache_groups
        ]

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
        """After a step: what each of the sequences `held`, by vLLM's id, holds now."""
        for name, its in held.items():
            request = self._scheduler.requests.get(name)
            if request is not None:
                num_bytes = self._bytes_of(name) if request.num_computed_tokens else 0
                its.observe(request.num_computed_tokens, num_bytes, request.num_preemptions)

    def peak_bytes(self, held: Held, num_tokens: int) -> int:
        """Of a sequence that has ended with `num_tokens` stored: its last step's blocks were free before one could look."""
        return max(held.peak_bytes, self._bytes_for(num_tokens, lambda n, size: -(-n // size)))

    def token_bytes(self, num_tokens: int) -> float:
        """Of `num_tokens` stored tokens, the rest of their last blocks aside, in the layers that keep every token."""
        return self._bytes_for(num_tokens, lambda n, size: n / size)

    def _bytes_for(self, num_tokens: int, num_blocks: Callable[[int, int], float]) -> Any:
        return sum(
            block_bytes * num_blocks(num_tokens, spec.block_size)
            for spec, block_bytes in zip(self._specs, self._block_bytes, strict=True)
            if isinstance(spec, self._keeps_all)
        )

    def _bytes_of(self, name: str) -> int:
        blocks = self._scheduler.kv_cache_manager.get_blocks(name).blocks
        return sum(
            block_bytes * sum(not block.is_null for block in its)
            for block_bytes, its in zip(self._block_bytes, blocks, strict=True)
        )
