"""Records how much the answer will attend to each token, as the importance predictor says.

A policy reads the scores only when it evicts, so those of decoded tokens can wait. The predictor
then runs once over the hidden states of several steps, at a fraction of the cost. Knows nothing
about policies.
"""

from collections.abc import Iterable

import torch

from dynts_batch.kvcache.arena import KVArena
from dynts_batch.kvcache.arena_shape import Column
from dynts_batch.kvcache.predictor import ImportancePredictor, place_of
from dynts_batch.kvcache.recorders import register
from dynts_batch.kvcache.recorders.recorder import LaneState, Recorder, Tokens, companion_of

#: Most decode steps whose scores may be outstanding.
MAX_PENDING_STEPS = 16


@register
class Importance(Recorder):
    column = Column("importance")
    companion = ImportancePredictor

    def __init__(self, arena: KVArena, lanes: LaneState, companions: Iterable[object]) -> None:
        super().__init__(arena, lanes, companions)
        predictor = companion_of(ImportancePredictor, companions)
        assert predictor is not None, "whoever requires importance brings a predictor"
        self._predictor, self._lane_state = predictor, lanes
        # A ring per lane: the token in slot s is at s % MAX_PENDING_STEPS.
        self._hidden_states = torch.zeros(
            arena.max_seqs, MAX_PENDING_STEPS, predictor.hidden_size, device=lanes.next_slots.device
        )
        self._num_steps = self._num_lanes = 0

    def end(self, tokens: Tokens, hidden_states: torch.Tensor) -> None:
        """Score a prompt's tokens, and remember the hidden states of decoded ones. Repeating it is
        harmless."""
        if tokens.is_prompt:
            self._score(hidden_states, tokens.lanes, tokens.slots)
        else:
            places = tokens.lanes, tokens.slots[:, 0] % MAX_PENDING_STEPS
            self._hidden_states[places] = hidden_states[:, 0].float()

    def step_done(self, num_lanes: int) -> None:
        self._num_steps, self._num_lanes = self._num_steps + 1, num_lanes
        if self._num_steps == MAX_PENDING_STEPS:
            self.settle()

    def settle(self) -> None:
        """Score what is outstanding. The lanes were the same in all its steps."""
        if self._num_steps:
            next_slots = self._lane_state.next_slots[: self._num_lanes, None]
            lanes = torch.arange(self._num_lanes, device=next_slots.device)
            slots = next_slots + torch.arange(-self._num_steps, 0, device=lanes.device)
            hidden_states = self._hidden_states[lanes[:, None], slots % MAX_PENDING_STEPS]
            self._score(hidden_states, lanes, slots)
            self._num_steps = 0

    def _score(self, hidden_states: torch.Tensor, lanes: torch.Tensor, slots: torch.Tensor) -> None:
        """Write the scores of the tokens in `slots` [R, T] of `lanes` [R].

        `hidden_states` [R, T, E] are theirs; their places follow from the arena's positions.
        """
        positions = self.arena.positions[lanes[:, None], 0, 0, slots]
        places = place_of(positions, self._lane_state.prompt_tokens[lanes, None])
        scores = self._predictor(hidden_states.float(), places)
        self.arena.write_column(self.column.name, lanes, slots, scores)
