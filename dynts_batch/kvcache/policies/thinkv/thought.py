"""Records the thought that each token belongs to: reasoning, until ThinKV knows better."""

from collections.abc import Iterable

import torch

from dynts_batch.kvcache.arena_shape import Column
from dynts_batch.kvcache.policies.thinkv.thoughts import REASONING, TRANSITION, Thoughts
from dynts_batch.kvcache.recorders import register
from dynts_batch.kvcache.recorders.recorder import Recorder, Tokens, companion_of


@register
class Thought(Recorder):
    """Nothing is recorded if a model's calibration cannot tell thoughts apart. Telling them takes
    the newest query."""

    column = Column("thought", coarse_value=TRANSITION)
    companion = Thoughts
    num_queries = 1

    @classmethod
    def has_use(cls, companions: Iterable[object]) -> bool:
        thoughts = companion_of(Thoughts, companions)
        return thoughts is not None and bool(thoughts.layers)

    def begin(self, tokens: Tokens) -> None:
        self.write(tokens, torch.full_like(tokens.slots, REASONING))
