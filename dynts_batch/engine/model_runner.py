"""Runs the model over lanes of the arena: prompts in chunks, then one token per lane and step.

Owns the model, what is recorded while it runs, and what a decode step reads on the device. Knows
nothing about requests, nor about which sequences come, go or lose slots: the engine tells `inputs`.
"""

from collections.abc import Sequence as Listed
from functools import partial
from typing import Any

import torch

from dynts_batch.config import SamplingConfig
from dynts_batch.engine.attention.padding import Padding
from dynts_batch.engine.attention.steps import DecodeStep, KVStep, PrefillStep, asks_nothing
from dynts_batch.engine.decoding.cuda_graphs import DecodeGraphs
from dynts_batch.engine.decoding.decode_inputs import DecodeInputs
from dynts_batch.engine.decoding.recorded_steps import RecordedSteps
from dynts_batch.engine.model.loader import LoadedModel
from dynts_batch.engine.recording import Observe, Recording
from dynts_batch.engine.sampling import sample
from dynts_batch.engine.sequence import Sequence
from dynts_batch.engine.shared_prompt import SharedPrompt
from dynts_batch.kvcache.arena import KVArena
from dynts_batch.kvcache.recorders.recorder import LaneState, Tokens


class ModelRunner:
    """`inputs` mirrors the running sequences on the device. `recording` is what the policy
    requires."""

    def __init__(
        self,
        model: LoadedModel,
        sampling: SamplingConfig,
        arena: KVArena,
        companions: Listed[object] = (),
    ) -> None:
        self.model, self._sampling, self._arena = model, sampling, arena
        self.inputs = DecodeInputs(arena.max_seqs, model.device)
        lanes = LaneState(self.inputs.slots, self.inputs.prompt_tokens)
        self.recording = Recording(arena, lanes, companions)
        self.graphs = self._make_graphs()
        #: By lane, for prompts that ended in the last `prefill`: the hidden state of the last
        #: token, [E].
        self.prompt_ends: dict[int, torch.Tensor] = {}

    def prefill(self, sequences: dict[int, Sequence]) -> tuple[list[int], list[float | None]]:
        """Process the next chunk of the prompts of `sequences`, by lane, in one pass.

        All of them have processed equally much. Returns the token that follows each, and its
        log-probability if the sampling keeps it.
        """
        self.settle()
        start = next(iter(sequences.values())).cache_len
        assert all(sequence.cache_len == start for sequence in sequences.values())
        pieces = [sequence.prompt_chunk for sequence in sequences.values()]
        longest = max(map(len, pieces))
        padded = [piece + [0] * (longest - len(piece)) for piece in pieces]
        lanes, token_ids = self._tensor(list(sequences)), self._tensor(padded)
        sizes = [len(piece) for piece in pieces]
        lengths = self._tensor(sizes)
        positions = torch.arange(start, start + longest, device=lanes.device).expand_as(token_ids)
        self._note_prompts(lanes, sequences)
        tokens = Tokens(
            *(lanes, token_ids, positions, positions, start + lengths),
            max_len=start + longest,
            is_prompt=True,
        )
        observe = self._begin(tokens)
        padding = Padding(sizes, lanes.device) if min(sizes) < longest else None
        step = PrefillStep(self._arena, lanes, lengths, start, observe, padding)
        hidden_states = self._run(tokens, step, padding)
        self.inputs.rest(lanes, start + lengths)
        last_states = hidden_states[torch.arange(len(pieces)), lengths - 1]
        self.prompt_ends = dict(zip(sequences, last_states, strict=True))
        return self._draw(sequences, last_states, start + lengths)

    def copy(
        self, sequences: dict[int, Sequence], shared: SharedPrompt
    ) -> tuple[list[int], list[float | None]]:
        """What `prefill` does, for sequences whose prompt is `shared`."""
        self.settle()
        for lane in sequences:
            shared.give(lane)
        lanes = self._tensor(list(sequences))
        self._note_prompts(lanes, sequences)
        lengths = torch.full_like(lanes, shared.num_tokens)
        last_states = shared.hidden_state.expand(len(sequences), -1)
        return self._draw(sequences, last_states, lengths)

    def decode(self, running: list[Sequence]) -> tuple[list[int], list[float | None]]:
        """Process the newest token of `running`, which are in the first lanes in order.

        Returns the next token of each, and its log-probability if the sampling keeps it.
        """
        num_lanes, longest = len(running), max(sequence.cache_len for sequence in running) + 1
        if self.graphs is not None:
            token_ids = self.graphs.run(num_lanes)
        else:
            is_ragged = any(sequence.cache_len + 1 < longest for sequence in running)
            token_ids = self.next_tokens(num_lanes, longest, is_ragged=is_ragged)
        self.inputs.advance(token_ids)
        self.recording.step_done(num_lanes)
        logprobs = self.inputs.logprobs[:num_lanes] if self._sampling.logprobs else None
        return token_ids.tolist(), self._on_host(logprobs, num_lanes)

    def move(self, source: int, target: int, cache_len: int) -> None:
        """Move a sequence that has stored `cache_len` tokens to another lane."""
        self.settle()
        self._arena.move(source, target, cache_len)
        self.inputs.move(source, target)

    def settle(self) -> None:
        """Write what is recorded late. Due before columns are read, and before lanes move or are
        refilled."""
        self.recording.settle()

    def next_tokens(self, num_lanes: int, max_len: int, *, is_ragged: bool) -> torch.Tensor:
        """The decode step of the first lanes. The longest has `max_len` slots then. Returns token
        ids [R].

        It reads nothing on the host. If what is recorded allows it, repeating it changes nothing.
        """
        lanes, token_ids, slots, positions, keys = self.inputs.first(num_lanes)
        tokens = Tokens(
            *(lanes, token_ids[:, None], positions[:, None], slots[:, None], slots + 1),
            max_len=max_len,
            is_prompt=False,
        )
        observe = self._begin(tokens)
        step = DecodeStep(
            self._arena, slots, positions, observe, max_len=max_len, is_ragged=is_ragged
        )
        hidden_states = self._run(tokens, step)[:, -1]
        logits = self.model.head(hidden_states)
        next_ids, logprobs = sample(logits, self._sampling, keys, positions + 1)
        if logprobs is not None:
            self.inputs.logprobs[:num_lanes] = logprobs
        return next_ids

    def _note_prompts(self, lanes: torch.Tensor, sequences: dict[int, Sequence]) -> None:
        """Let the device know how long the prompts in `lanes` [R] are, read or not."""
        self.inputs.prompt_tokens[lanes] = self._tensor(
            [len(sequence.prompt_token_ids) for sequence in sequences.values()]
        )

    def _draw(
        self, sequences: dict[int, Sequence], hidden_states: torch.Tensor, positions: torch.Tensor
    ) -> tuple[list[int], list[float | None]]:
        """The next token of each of `sequences`, at `positions` [R].

        Their newest tokens have `hidden_states` [R, E].
        """
        keys = self._tensor([sequence.key for sequence in sequences.values()])
        logits = self.model.head(hidden_states)
        token_ids, logprobs = sample(logits, self._sampling, keys, positions)
        return token_ids.tolist(), self._on_host(logprobs, len(sequences))

    def _on_host(self, logprobs: torch.Tensor | None, num_rows: int) -> list[float | None]:
        return [None] * num_rows if logprobs is None else logprobs.tolist()

    def _begin(self, tokens: Tokens) -> Observe | None:
        """Start recording before the model runs: sliding-window layers read positions in the same
        step."""
        self._arena.write_column("positions", tokens.lanes, tokens.slots, tokens.positions)
        return self.recording.begin(tokens)

    def _run(self, tokens: Tokens, step: KVStep, padding: Padding | None = None) -> torch.Tensor:
        """Final-norm hidden states [R, T, E] of `tokens`; of their `padding`: zeros."""
        read = (tokens.token_ids, tokens.positions)
        token_ids, positions = [padding.remove(x)[None] for x in read] if padding else read
        hidden_states = self.model.decoder(
            input_ids=token_ids, position_ids=positions, use_cache=False, kv_step=step
        ).last_hidden_state
        if padding:
            hidden_states = padding.add(hidden_states[0])
        self.recording.end(tokens, hidden_states)
        return hidden_states

    def _make_graphs(self) -> DecodeGraphs | RecordedSteps | None:
        """What repeats the decode step without its Python.

        None if the step reads values on the host, or if repeating it would change something.
        """
        shape, device = self._arena.shape, self.model.device
        if not asks_nothing(shape, device) or not self.recording.is_repeatable:
            return None
        step = partial(self.next_tokens, max_len=self._arena.capacity, is_ragged=True)
        if device.type == "cuda":
            return DecodeGraphs(step, self.inputs, self._arena.max_seqs)
        return RecordedSteps(step)

    def _tensor(self, values: Any) -> torch.Tensor:
        return torch.tensor(values, device=self.model.device)
