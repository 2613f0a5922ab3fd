"""What a recorder is: as the model runs, it writes one column of the arena, a value per stored
token.

To add a column, derive from `Recorder`, name the column, and override what it needs of the forward
pass. `begin` sees the tokens before the model does. `observe` sees the queries, keys and values of
each layer. `end` sees the final hidden states. What is not overridden costs nothing.

`@register` it, in this package or in the module of the policy that uses it. That policy names the
column in its `requires`, reads it with `slots.column(name)`, and may rewrite it with `relabel`.
"""

from collections.abc import Iterable
from typing import ClassVar, NamedTuple, TypeVar

import torch

from dynts_batch.kvcache.arena import KVArena
from dynts_batch.kvcache.arena_shape import Column
from dynts_batch.kvcache.layer_states import LayerStates

T = TypeVar("T")


class Tokens(NamedTuple):
    """The tokens of one forward pass: chunks of prompts, or one token of each lane.

    Chunks are right-padded: slots from `cache_len` on get padding. A repeated decode step also runs
    lanes that hold no sequence. What is written for them goes to slots that are written again
    before they are read.
    """

    lanes: torch.Tensor
    """[R]"""
    token_ids: torch.Tensor
    """[R, T]"""
    positions: torch.Tensor
    """In their sequences, [R, T]."""
    slots: torch.Tensor
    """Where they go, [R, T]."""
    cache_len: torch.Tensor
    """What each lane stores with them, [R]."""
    max_len: int
    """At least the largest of `cache_len`."""
    is_prompt: bool


class LaneState(NamedTuple):
    """What the engine knows of each lane, kept up to date on the device, int64 [max_seqs] each."""

    next_slots: torch.Tensor
    """Where its next token will go."""
    prompt_tokens: torch.Tensor
    """The length of its prompt."""


class Recorder:
    """Base of all recorders.

    If all recorders are repeatable (`is_repeatable`), a decode step is repeated without its Python.
    Then `begin`, `observe` and `end` may only use torch operations that read no values on the host,
    on tensors that stay in place. `step_done` is called after every step.
    """

    column: ClassVar[Column]
    #: The type of what was made for the model and is needed, such as a predictor. None: nothing.
    companion: ClassVar[type | None] = None
    #: How many of each row's newest queries a policy needs to use the column.
    num_queries: ClassVar[int] = 0
    #: Whether doing a decode step again changes nothing.
    is_repeatable: ClassVar[bool] = True

    def __init__(self, arena: KVArena, lanes: LaneState, companions: Iterable[object]) -> None:
        self.arena = arena

    @classmethod
    def has_use(cls, companions: Iterable[object]) -> bool:
        """Whether there is anything to record with such companions. If not, the arena has no such
        column."""
        return True

    def begin(self, tokens: Tokens) -> None:
        """Called before the model runs."""

    def observe(self, tokens: Tokens, states: LayerStates) -> None:
        """Called in each layer, after it has stored keys and values."""

    def end(self, tokens: Tokens, hidden_states: torch.Tensor) -> None:
        """Called after the model has run, with final-norm hidden states [R, T, E]."""

    def step_done(self, num_lanes: int) -> None:
        """Called after a decode step of the first `num_lanes` lanes."""

    def settle(self) -> None:
        """Write what is recorded late. Called before the column is read, moved or given to a new
        sequence."""

    def write(self, tokens: Tokens, values: torch.Tensor) -> None:
        """Write values [R, T] of the tokens, for all layers and heads."""
        self.arena.write_column(self.column.name, tokens.lanes, tokens.slots, values)


def companion_of(kind: type[T], companions: Iterable[object]) -> T | None:
    """The one of `companions` that is of this type, or None."""
    return next((one for one in companions if isinstance(one, kind)), None)
