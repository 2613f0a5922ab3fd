"""What a recorder is: it writes one column of the arena, a value for every stored token, as the model runs.

To add a column, derive from `Recorder`, name the column, and override what it needs of the forward pass: `begin` sees
the tokens before the model does, `observe` the queries, keys and values of each layer, `end` the final hidden states. What
is not overridden costs nothing. `@register` it, in this package or in the module of the policy that uses it. That policy
names the column in its `requires`, reads it with `slots.column(name)`, and may rewrite it with `relabel`.
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

    Chunks are right-padded: what goes to slots from `cache_len` on is padding. In a decode step that is repeated, lanes
    run along that hold no sequence: what is written for them goes to slots that are written again before they are read.
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
    """The largest of `cache_len`, or more."""
    is_prompt: bool


class LaneState(NamedTuple):
    """What the engine knows of each lane, and keeps up to date on the device, int64 [max_seqs] each."""

    next_slots: torch.Tensor
    """Where its next token will go."""
    prompt_tokens: torch.Tensor
    """The length of its prompt."""


class Recorder:
    """Base of all recorders.

    A decode step is repeated without its Python where all recorders allow it (`is_repeatable`): `begin`, `observe` and
    `end` may then do nothing but operations of torch that ask no values of the host, on tensors that stay where they
    are. `step_done` is called after every step.
    """

    column: ClassVar[Column]
    #: The type of what was made for the model and is needed beside it, as an importance predictor is; None: nothing.
    companion: ClassVar[type | None] = None
    #: How many of each row's newest queries the policy needs to make use of the column.
    num_queries: ClassVar[int] = 0
    #: Whether doing a decode step again changes nothing.
    is_repeatable: ClassVar[bool] = True

    def __init__(self, arena: KVArena, lanes: LaneState, companions: Iterable[object]) -> None:
        self.arena = arena

    @classmethod
    def has_use(cls, companions: Iterable[object]) -> bool:
        """Whether there is anything to record with such companions; if not, the arena has no such column."""
        return True

    def begin(self, tokens: Tokens) -> None:
        """Before the model runs."""

    def observe(self, tokens: Tokens, states: LayerStates) -> None:
        """In each layer, after it has stored keys and values."""

    def end(self, tokens: Tokens, hidden_states: torch.Tensor) -> None:
        """After the model has run: final-norm hidden states [R, T, E]."""

    def step_done(self, num_lanes: int) -> None:
        """A decode step of the first `num_lanes` lanes is done."""

    def settle(self) -> None:
        """Write what is recorded late. Called before the column is read, and before lanes move or are refilled."""

    def write(self, tokens: Tokens, values: torch.Tensor) -> None:
        """Values [R, T] of the tokens, for all layers and heads."""
        self.arena.write_column(self.column.name, tokens.lanes, tokens.slots, values)


def companion_of(kind: type[T], companions: Iterable[object]) -> T | None:
    """The one of `companions` that is of this type; None: there is none."""
    return next((one for one in companions if isinstance(one, kind)), None)
