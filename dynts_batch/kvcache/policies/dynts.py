"""DynTS: the thinking tokens that the answer will attend to stay."""

from dataclasses import dataclass

import torch

from dynts_batch.errors import ConfigError
from dynts_batch.kvcache.policies import register
from dynts_batch.kvcache.policy import Counts, Policy
from dynts_batch.kvcache.view import Slots


@register("dynts")
@dataclass(frozen=True)
class DynTS(Policy):
    """Keeps the candidates with the highest predicted importance (arXiv 2601.18383).

    The importance predictor reads a token's final hidden state once, when its keys are stored. If
    it was trained to, it also reads the token's place (kvcache/predictor.py). All layers and heads
    keep the same tokens. `bottom`: keep the least important tokens, the paper's ablation.

    `prompt_in_ratio` needs `protect_prompt`. The kept share is then one of all tokens older than
    the window, and the prompt takes its part of it, as in the reference code. A prompt longer than
    that share loses its newest tokens. Deviation, and our default: the prompt is protected outside
    the ratio.
    """

    requires = ("importance",)

    bottom: bool = False
    """Keep the least important tokens: the paper's ablation."""
    prompt_in_ratio: bool = False
    """`keep_ratio` counts the prompt too, as in the reference code. Needs `protect_prompt`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.prompt_in_ratio and not self.protect_prompt:
            raise ConfigError(
                "policy.prompt_in_ratio needs policy.protect_prompt to be true, got false"
            )

    def counts(self, *, prompt_tokens: int, answer_tokens: int, cache_len: int) -> Counts:
        counts = super().counts(
            prompt_tokens=prompt_tokens, answer_tokens=answer_tokens, cache_len=cache_len
        )
        if not self.prompt_in_ratio:
            return counts
        num_kept = self.num_kept(cache_len - counts.last)
        num_first = min(prompt_tokens, num_kept)
        return Counts(num_first, counts.last, num_kept - num_first)

    def longest_prompt(self, max_prompt_tokens: int) -> int:
        longest = super().longest_prompt(max_prompt_tokens)
        # A prompt that may be cut need not leave room for the window.
        return longest + self.window_size if self.prompt_in_ratio else longest

    def score(self, slots: Slots) -> torch.Tensor:
        importance = slots.column("importance")
        return -importance if self.bottom else importance
