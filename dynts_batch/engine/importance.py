"""Records how much the answer will attend to each token, as the importance predictor says.

A policy reads the scores when it evicts, so those of decoded tokens can wait: the predictor runs over the hidden states of
several steps at once, which costs a fraction of as many runs over one token a lane. Knows nothing about policies.
"""

import torch

from dynts_batch.kvcache.arena import KVArena
from dynts_batch.kvcache.predictor import ImportancePredictor, place_of

#: Decode steps whose scores may be outstanding.
MAX_PENDING_STEPS = 16


class ImportanceRecorder:
    """Writes the arena's column "importance". Whoever reads it, or moves or refills lanes, calls `flush` before."""

    def __init__(
        self,
        predictor: ImportancePredictor,
        arena: KVArena,
        next_slots: torch.Tensor,
        prompt_tokens: torch.Tensor,
    ) -> None:
        """Kept up to date by the caller, [max_seqs] each: `next_slots`, that each lane's next token goes to, and
        `prompt_tokens`, the length of its prompt."""
        self._predictor, self._arena = predictor, arena
        self._next_slots, self._prompt_tokens = next_slots, prompt_tokens
        # A ring per lane: the token in slot s stands at s % MAX_PENDING_STEPS.
        self._hidden_states = torch.zeros(
            arena.max_seqs, MAX_PENDING_STEPS, predictor.hidden_size, device=next_slots.device
        )
        self._num_steps = self._num_lanes = 0

    def score(self, hidden_states: torch.Tensor, lanes: torch.Tensor, slots: torch.Tensor) -> None:
        """Score the tokens in `slots` [rows, T] of `lanes` [rows] now, by their final-norm hidden states [rows, T, d] and
        the places that the arena has for them."""
        positions = self._arena.positions[lanes[:, None], 0, 0, slots]
        places = place_of(positions, self._prompt_tokens[lanes, None])
        scores = self._predictor(hidden_states.float(), places)
        self._arena.write_column("importance", lanes, slots, scores)

    def defer(self, hidden_states: torch.Tensor, slots: torch.Tensor) -> None:
        """Remember the hidden states [R, d] of the tokens decoded in `slots` [R] of the first lanes; doing it again
        changes nothing."""
        lanes = torch.arange(len(slots), device=slots.device)
        self._hidden_states[lanes, slots % MAX_PENDING_STEPS] = hidden_states.float()

    def count_step(self, num_lanes: int) -> None:
        """A decode step of the first `num_lanes` lanes is done."""
        self._num_steps, self._num_lanes = self._num_steps + 1, num_lanes
        if self._num_steps == MAX_PENDING_STEPS:
            self.flush()

    def flush(self) -> None:
        """Score what is outstanding. The lanes were the same in all steps of it."""
        if self._num_steps:
            lanes = torch.arange(self._num_lanes, device=self._next_slots.device)
            newest = torch.arange(-self._num_steps, 0, device=lanes.device)
            slots = self._next_slots[: self._num_lanes, None] + newest
            hidden_states = self._hidden_states[lanes[:, None], slots % MAX_PENDING_STEPS]
            self.score(hidden_states, lanes, slots)
            self._num_steps = 0
