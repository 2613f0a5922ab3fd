"""Runs the model over lanes of the arena: prompts in chunks, then one token a lane and step; returns the next tokens.

Owns the model, the importance predictor, and what a decode step reads on the device. Knows nothing about requests, nor about
which sequences come, go or lose slots: the engine tells `inputs`.
"""

from functools import partial
from typing import Any

import torch

from dynts_batch.config import SamplingConfig
from dynts_batch.engine.attention.steps import DecodeStep, KVStep, PrefillStep, asks_nothing
from dynts_batch.engine.cuda_graphs import DecodeGraphs
from dynts_batch.engine.decode_inputs import DecodeInputs
from dynts_batch.engine.importance import ImportanceRecorder
from dynts_batch.engine.model.loader import LoadedModel
from dynts_batch.engine.observer import Observer
from dynts_batch.engine.recorded_steps import RecordedSteps
from dynts_batch.engine.sampling import sample
from dynts_batch.engine.sequence import Sequence
from dynts_batch.kvcache.arena import KVArena
from dynts_batch.kvcache.predictor import ImportancePredictor
from dynts_batch.kvcache.thoughts import REASONING


class ModelRunner:
    """`inputs` mirrors the running sequences on the device; `observer` records what the policy requires of queries."""

    def __init__(
        self,
        model: LoadedModel,
        predictor: ImportancePredictor | None,
        sampling: SamplingConfig,
        arena: KVArena,
    ) -> None:
        self.model, self.predictor, self._sampling, self._arena = model, predictor, sampling, arena
        self.observer = Observer(arena)
        self.inputs = DecodeInputs(arena.max_seqs, model.device)
        self._importance = (
            ImportanceRecorder(predictor, arena, self.inputs.slots, self.inputs.prompt_tokens)
            if predictor
            else None
        )
        self.graphs = self._make_graphs()

    def prefill(self, sequences: dict[int, Sequence]) -> list[int]:
        """Process the next chunk of the prompts of `sequences`, by lane, all of which are as far as each other, in one
        pass; returns the token that follows each."""
        self.settle()
        start = next(iter(sequences.values())).cache_len
        assert all(sequence.cache_len == start for sequence in sequences.values())
        pieces = [sequence.prompt_chunk for sequence in sequences.values()]
        longest = max(map(len, pieces))
        padded = [piece + [0] * (longest - len(piece)) for piece in pieces]
        lanes, token_ids = self._tensor(list(sequences)), self._tensor(padded)
        lengths = self._tensor([len(piece) for piece in pieces])
        positions = torch.arange(start, start + longest, device=lanes.device).expand_as(token_ids)
        observe = self.observer.prompts(lanes, positions, start + lengths)
        step = PrefillStep(self._arena, lanes, lengths, start, observe)
        hidden_states = self.forward(token_ids, positions, step, lanes, slots=positions)
        self.inputs.prompt_tokens[lanes] = self._tensor(
            [len(sequence.prompt_token_ids) for sequence in sequences.values()]
        )
        if self._importance is not None:
            self._importance.score(hidden_states, lanes, positions)
        self.inputs.rest(lanes, start + lengths)
        logits = self.model.head(hidden_states[torch.arange(len(pieces)), lengths - 1])
        keys = self._tensor([sequence.key for sequence in sequences.values()])
        return sample(logits, self._sampling, keys, start + lengths).tolist()

    def decode(self, running: list[Sequence]) -> list[int]:
        """Process the newest token of `running`, which are in the first lanes in order; returns the next of each."""
        num_lanes, longest = len(running), max(sequence.cache_len for sequence in running) + 1
        if self.graphs is not None:
            token_ids = self.graphs.run(num_lanes)
        else:
            is_ragged = any(sequence.cache_len + 1 < longest for sequence in running)
            token_ids = self.next_tokens(num_lanes, longest, is_ragged=is_ragged)
        self.inputs.advance(token_ids)
        if self._importance is not None:
            self._importance.count_step(num_lanes)
        return token_ids.tolist()

    def move(self, source: int, target: int, cache_len: int) -> None:
        """A sequence that has stored `cache_len` tokens changes its lane."""
        self.settle()
        self._arena.move(source, target, cache_len)
        self.inputs.move(source, target)

    def settle(self) -> None:
        """Write what is recorded late. Due before the arena's columns are read, and before lanes move or are refilled."""
        if self._importance is not None:
            self._importance.flush()

    def next_tokens(self, num_lanes: int, max_len: int, *, is_ragged: bool) -> torch.Tensor:
        """The decode step of the first lanes, the longest of which has `max_len` slots then; returns token ids [R].

        It asks nothing of the host, and where what is observed allows it, doing it again changes nothing.
        """
        lanes, token_ids, slots, positions, keys = self.inputs.first(num_lanes)
        observe = self.observer.tokens(lanes, slots, positions, max_len)
        step = DecodeStep(
            self._arena, slots, positions, observe, max_len=max_len, is_ragged=is_ragged
        )
        hidden_states = self.forward(
            token_ids[:, None], positions[:, None], step, lanes, slots=slots[:, None]
        )[:, -1]
        if self._importance is not None:
            self._importance.defer(hidden_states, slots)
        logits = self.model.head(hidden_states)
        return sample(logits, self._sampling, keys, positions + 1)

    def forward(
        self,
        token_ids: torch.Tensor,
        positions: torch.Tensor,
        step: KVStep,
        lanes: torch.Tensor,
        slots: torch.Tensor,
    ) -> torch.Tensor:
        """Final-norm hidden states [B, T, hidden_size] of `token_ids` [B, T] at `positions` [B, T], which go to `slots`
        [B, T] of `lanes` [B]."""
        # Before the model: sliding-window layers read it in the same step.
        self._arena.write_column("positions", lanes, slots, positions)
        if "token_id" in self._arena.columns:
            self._arena.write_column("token_id", lanes, slots, token_ids)
        if "thought" in self._arena.columns:  # until the policy knows better
            self._arena.write_column("thought", lanes, slots, torch.full_like(slots, REASONING))
        return self.model.decoder(
            input_ids=token_ids, position_ids=positions, use_cache=False, kv_step=step
        ).last_hidden_state

    def _make_graphs(self) -> DecodeGraphs | RecordedSteps | None:
        """What repeats the decode step without its Python, where the step asks the host nothing and can be done again."""
        shape, device = self._arena.shape, self.model.device
        if not asks_nothing(shape, device) or not self.observer.is_repeatable:
            return None
        step = partial(self.next_tokens, max_len=self._arena.capacity, is_ragged=True)
        if device.type == "cuda":
            return DecodeGraphs(step, self.inputs, self._arena.max_seqs)
        return RecordedSteps(step)

    def _tensor(self, values: Any) -> torch.Tensor:
        return torch.tensor(values, device=self.model.device)
