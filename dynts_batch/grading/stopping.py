"""How many samples of a question are enough, from the finished ones in the order of their indices.

A sample is run if and only if the question is still open after the samples of all earlier windows.
So which samples run depends on indices and answers, not on which sample ends first.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Self

from dynts_batch.config import SamplingConfig
from dynts_batch.errors import ConfigError
from dynts_batch.grading.equality import canonical_answer
from dynts_batch.grading.votes import RuleName, fewest_votes, votes_missing


class Sample(NamedTuple):
    """The result of one sample."""

    answer: Hashable | None
    """Equal answers must compare equal. None: no answer, which is a vote for nobody."""
    is_right: bool

    @classmethod
    def of(cls, extracted_answer: str | None, correct: bool | None) -> Self:
        """A sample from the columns of its row."""
        answer = None if extracted_answer is None else canonical_answer(extracted_answer)
        return cls(answer, correct is True)


@dataclass(frozen=True)
class Stopping:
    """When a run stops sampling a question."""

    when: Literal["agreed", "right"]
    rule: RuleName
    confidence: float
    window: int
    num_samples: int
    """The most samples of a question."""

    @classmethod
    def from_config(cls, config: SamplingConfig) -> Self | None:
        """The rule of a run; None if all samples are run.

        Raises: ConfigError if no number of votes up to num_samples can decide.
        """
        if config.stop_when is None:
            return None
        if config.stop_when == "agreed":
            fewest = fewest_votes(config.stop_rule, config.stop_confidence)
            if config.num_samples < fewest:
                raise ConfigError(
                    f"sampling.num_samples must be at least {fewest} for "
                    f"sampling.stop_when=agreed (so many equal votes decide by "
                    f"{config.stop_rule} at {config.stop_confidence:g}), got {config.num_samples}"
                )
        return cls(
            config.stop_when,
            config.stop_rule,
            config.stop_confidence,
            config.stop_window,
            config.num_samples,
        )

    @property
    def num_certain(self) -> int:
        """Samples that every question gets."""
        return self.num_needed(0, self.num_missing([]))

    def num_missing(self, samples: Sequence[Sample]) -> int:
        """Fewest further samples after which the question can be decided. 0: it is decided."""
        if self.when == "right":
            return 0 if any(sample.is_right for sample in samples) else 1
        return votes_missing([sample.answer for sample in samples], self.rule, self.confidence)

    def num_needed(self, num_done: int, num_missing: int) -> int:
        """How many samples are certain to run: whole windows.

        The first `num_done` are finished, and the question misses `num_missing` more.
        """
        return min(self.num_samples, -(-(num_done + num_missing) // self.window) * self.window)
