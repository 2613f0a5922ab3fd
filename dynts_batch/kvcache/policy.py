"""What an eviction policy is: it scores slots and says which are protected. It moves nothing.

To add a method: write `policies/NAME.py` with a frozen dataclass that derives from `Policy`, give it a docstring
with the paper and its parameters as fields, declare what it `requires`, return scores, and `@register` it under its
name. The laws in tests/kvcache/test_policies.py then hold it to its contract.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from dynts_batch.errors import ConfigError

#: The per-slot values that the engine can record, besides positions.
RECORDED = frozenset({"importance"})


@dataclass(frozen=True)
class Slots:
    """The rows to evict from, as a policy sees them.

    `positions` and every column are [rows, *granularity, slots]; `cache_len` [rows] says how many slots
    are live. `keys` [rows] are the sequences' randomness keys, `seq_len` [rows] their logical lengths.
    """

    positions: torch.Tensor
    columns: Mapping[str, torch.Tensor]
    cache_len: torch.Tensor
    seq_len: torch.Tensor
    keys: torch.Tensor


@dataclass(frozen=True)
class Policy:
    """Base of all policies: the common parameters and the contract.

    `budget`: cap on cache_len, prompt included; reaching it triggers an eviction. `window_size`: newest tokens, never
    evicted. `keep_ratio`: share of the candidates kept; at least one is always evicted. `protect_prompt`: the
    prompt is never a candidate.

    Raises: ConfigError where the parameters break a rule.
    """

    #: The name in `policy.name`.
    name: ClassVar[str]
    #: Per-slot values the engine records for this policy, out of `RECORDED`: "importance" is the predictor's score.
    requires: ClassVar[tuple[str, ...]] = ()
    #: Whether each layer and KV head keeps its own tokens.
    per_head: ClassVar[bool] = False

    budget: int | None = None
    window_size: int = 128
    keep_ratio: float = 0.3
    protect_prompt: bool = True

    def __post_init__(self) -> None:
        if self.budget is None:
            raise ConfigError(f"policy.budget is required by policy {self.name!r}, got nothing")
        if self.window_size < 0 or not 0 < self.keep_ratio <= 1:
            raise ConfigError(
                "policy.window_size must be at least 0 and policy.keep_ratio in (0, 1],"
                f" got {self.window_size} and {self.keep_ratio}"
            )
        if self.budget <= self.window_size + self.num_sinks:
            raise ConfigError(
                f"policy.window_size must be smaller than policy.budget ({self.budget}) by more than the "
                f"{self.num_sinks} sink tokens, got {self.window_size}"
            )

    @property
    def num_sinks(self) -> int:
        """First tokens of the sequence that are never evicted, whatever `protect_prompt` says."""
        return 0

    def num_protected_first(self, prompt_tokens: int) -> int:
        """How many of the oldest stored tokens may not be evicted."""
        return max(prompt_tokens if self.protect_prompt else 0, self.num_sinks)

    def num_protected_last(self, answer_tokens: int, num_free: int) -> int:
        """How many of the newest stored tokens may not be evicted, of the `num_free` behind the first ones.

        The window, and the whole answer as long as that leaves a candidate: the memory promise comes first.
        """
        return answer_tokens if self.window_size < answer_tokens < num_free else self.window_size

    def capacity(self, max_prompt_tokens: int, max_new_tokens: int) -> int:
        """Slots that a sequence needs: the budget, whatever its prompt and completion may grow to."""
        assert self.budget is not None, "config.validate() requires a budget"
        return self.budget

    def longest_prompt(self, max_prompt_tokens: int) -> int:
        """The longest prompt that leaves a candidate to evict once the budget is reached."""
        assert self.budget is not None, "config.validate() requires a budget"
        return self.budget - 1 - (self.window_size if self.protect_prompt else 0)

    def score(self, slots: Slots) -> torch.Tensor:
        """Scores of all slots, higher = keep, broadcastable to [rows, *granularity, slots].

        Only candidates' scores are read. Pure: the same slots give the same scores.
        """
        raise NotImplementedError
