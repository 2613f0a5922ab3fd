"""The full cache: nothing is evicted. The reference that every other policy is held against."""

from dataclasses import dataclass

from dynts_batch.kvcache.policies import register
from dynts_batch.kvcache.policy import Policy


@register("full")
@dataclass(frozen=True)
class Full(Policy):
    """Never evicts. Without a budget a sequence has room for memory.max_prompt_tokens + sampling.max_new_tokens;
    with one, a sequence that reaches it ends with finish_reason "length"."""

    evicts = False

    def __post_init__(self) -> None:
        pass  # window_size and keep_ratio have no meaning here

    def max_prompt_tokens(self) -> int:
        assert self.budget is not None
        return self.budget
