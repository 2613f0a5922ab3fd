"""Ends what the model does not end itself: thinking beyond its budget, and text that repeats
itself.

The engine writes the end of thinking, and the model then answers. Forced tokens go through the
model like sampled ones, so policies and labels see them as the end of thinking.
"""

from dataclasses import dataclass
from typing import Self

from dynts_batch.config import SamplingConfig
from dynts_batch.engine.prompt import PromptRenderer
from dynts_batch.engine.repetition import repeats
from dynts_batch.engine.sequence import Sequence
from dynts_batch.errors import BadRowError, ConfigError

#: A sequence is searched for loops every this many tokens.
CHECK_TOKENS = 16


@dataclass(frozen=True)
class Endings:
    """Watches sequences, after each of their tokens."""

    renderer: PromptRenderer
    sampling: SamplingConfig
    end_token_ids: tuple[int, ...]
    """The end of thinking: sampling.end_thinking_text, with the end tag in it or after it.

    A model that ends its turn after the tag can be made to begin its answer with what follows it.
    """

    @classmethod
    def make(cls, renderer: PromptRenderer, sampling: SamplingConfig) -> Self:
        """Raises: ConfigError if the tokenizer cannot write sampling.end_thinking_text."""
        text = sampling.end_thinking_text
        if renderer.tags.end not in text:
            text += renderer.tags.end
        try:
            token_ids = renderer.encode(text)
        except BadRowError:
            token_ids = []
        if sampling.max_thinking_tokens is not None and renderer.text(token_ids) != text:
            raise ConfigError(
                "sampling.end_thinking_text must be text that the model's tokenizer can write, got"
                f" {sampling.end_thinking_text!r}, of which, with the end tag, it makes"
                f" {renderer.text(token_ids)!r}"
            )
        return cls(renderer, sampling, tuple(token_ids))

    def begin(self, sequence: Sequence) -> None:
        """Called before the first token. A budget of 0 ends thinking that the prompt has begun."""
        if self.sampling.max_thinking_tokens == 0 and self._is_thinking(sequence):
            sequence.force(self.end_token_ids, "budget")

    def watch(self, sequence: Sequence) -> None:
        """Called after each token, also those of the prompt that are processed one by one."""
        num_tokens = len(sequence.completion_token_ids)
        if sequence.finish_reason is not None or sequence.forced_token_ids or num_tokens == 0:
            return
        if self._may_spend_budget(num_tokens) and self._is_thinking(sequence):
            sequence.force(self.end_token_ids, "budget")
        elif num_tokens % CHECK_TOKENS == 0 and self._is_looping(sequence):
            if self._is_thinking(sequence):
                sequence.force(self.end_token_ids, "loop")
            else:
                sequence.finish_reason = "loop"

    def _may_spend_budget(self, num_tokens: int) -> bool:
        """Whether thinking ends after so many tokens. An opening tag that the model writes itself
        may be complete only after the budget."""
        budget = self.sampling.max_thinking_tokens
        return budget is not None and (
            budget <= num_tokens <= max(budget, self.renderer.num_opening_tokens)
        )

    def _is_looping(self, sequence: Sequence) -> bool:
        min_tokens, num_blocks = self.sampling.loop_min_tokens, self.sampling.loop_repeats
        return num_blocks > 0 and repeats(sequence.completion_token_ids, min_tokens, num_blocks)

    def _is_thinking(self, sequence: Sequence) -> bool:
        return sequence.answer_start is None and (
            self.renderer.opens(sequence.completion_token_ids)
            or self.renderer.opens_thinking(sequence.prompt_token_ids)
            or self.renderer.continues_thinking(sequence.request)
        )
