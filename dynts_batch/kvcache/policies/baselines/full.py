"""The full cache: nothing is evicted. Every other policy is compared to it."""

from dataclasses import dataclass

from dynts_batch.errors import ConfigError
from dynts_batch.kvcache.policies import register
from dynts_batch.kvcache.policy import Policy


@register("full")
@dataclass(frozen=True)
class Full(Policy):
    """Never evicts. A sequence has room for memory.max_prompt_tokens + sampling.max_new_tokens.

    Budget, window and ratio have no effect, so `policy.name=full` alone turns any run into its own
    reference.
    """

    def __post_init__(self) -> None:
        if self.retry_budget is not None:
            raise ConfigError(
                "policy.retry_budget must be null for policy 'full', which evicts nothing and so"
                f" has no more room to give, got {self.retry_budget}"
            )

    def capacity(self, max_prompt_tokens: int, max_new_tokens: int) -> int:
        return max_prompt_tokens + max_new_tokens

    def longest_prompt(self, max_prompt_tokens: int) -> int:
        return max_prompt_tokens
