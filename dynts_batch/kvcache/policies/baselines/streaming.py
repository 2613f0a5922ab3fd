"""StreamingLLM: attention sinks and the newest tokens stay."""

from dataclasses import dataclass

import torch

from dynts_batch.errors import ConfigError
from dynts_batch.kvcache.policies import register
from dynts_batch.kvcache.policy import Policy
from dynts_batch.kvcache.view import Slots


@register("streaming")
@dataclass(frozen=True)
class Streaming(Policy):
    """Keeps the first `num_sink_tokens` and the newest candidates (Xiao et al. 2023, arXiv
    2309.17453).

    Deviation: keys keep the RoPE positions of the text, and are not renumbered inside the cache. A
    protected prompt contains the sinks, so the policy then equals `window`.
    """

    num_sink_tokens: int = 4
    """First tokens of a sequence, which stay. At least 0."""

    def __post_init__(self) -> None:
        if self.num_sink_tokens < 0:
            raise ConfigError(
                f"policy.num_sink_tokens must be at least 0, got {self.num_sink_tokens}"
            )
        super().__post_init__()

    @property
    def num_sinks(self) -> int:
        return self.num_sink_tokens

    def score(self, slots: Slots) -> torch.Tensor:
        return slots.positions.float()
