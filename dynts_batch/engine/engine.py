"""The engine: one decode loop for all policies. Admit, prefill, decode, evict, retire, and again.

Owns the running batch and its timing. The arena moves keys and values, the policy says which stay; nothing
here asks which policy it is. Knows nothing about data sets, Ray or grading.
"""

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Self

import torch

from dynts_batch.config import MemoryConfig, ModelConfig, PolicyConfig, SamplingConfig
from dynts_batch.engine.eviction_trace import EvictionTrace
from dynts_batch.engine.model.loader import LoadedModel, load_importance, load_model
from dynts_batch.engine.model.memory import (
    arena_shape,
    plan_max_seqs,
    prefill_bytes,
    room_on_gpu,
)
from dynts_batch.engine.model.resolved import resolve_model
from dynts_batch.engine.model_runner import ModelRunner
from dynts_batch.engine.out_of_memory import free_memory
from dynts_batch.engine.prompt import PromptRenderer
from dynts_batch.engine.sampling import NO_TOKEN
from dynts_batch.engine.scheduler import MAX_PREFILL_TOKENS, Scheduler
from dynts_batch.engine.sequence import Sequence
from dynts_batch.errors import NonFiniteLogitsError, PromptTooLongError, RowError
from dynts_batch.kvcache.arena import KVArena
from dynts_batch.kvcache.compaction import ascending
from dynts_batch.kvcache.counter_rng import sequence_key
from dynts_batch.kvcache.policies import make_policy
from dynts_batch.kvcache.policy import Policy
from dynts_batch.kvcache.predictor import ImportancePredictor
from dynts_batch.kvcache.thoughts import Thoughts
from dynts_batch.kvcache.view import Row, Slots
from dynts_batch.records import Completion, Request, TokenTrace

#: What an eviction may take beside the arena, as long as one sequence fits.
EVICTION_BYTES = 2**30


class Engine:
    """Generates completions for requests. `Engine.load` is the usual way to get one."""

    def __init__(
        self,
        model: LoadedModel,
        policy: Policy,
        predictor: ImportancePredictor | None,
        sampling: SamplingConfig,
        memory: MemoryConfig,
        thoughts: Thoughts = Thoughts(),
        *,
        gpu_share: float = 1.0,
    ) -> None:
        self._model, self._policy, self._sampling = model, policy, sampling
        self._thoughts = thoughts
        self._renderer = PromptRenderer(model.tokenizer, model.think_tags)
        self._longest_prompt = policy.longest_prompt(memory.max_prompt_tokens)
        capacity = policy.capacity(memory.max_prompt_tokens, sampling.max_new_tokens)
        shape = arena_shape(model.config, policy, model.decoder.dtype, thoughts)
        row_bytes = policy.eviction_bytes(shape, capacity)
        free_bytes = self._free_bytes(gpu_share, max(row_bytes, EVICTION_BYTES))
        max_seqs = plan_max_seqs(shape, capacity, memory, free_bytes, model.config.vocab_size)
        self.arena = KVArena(shape, max_seqs, capacity, model.device)
        self._rows_at_once = max(1, EVICTION_BYTES // row_bytes)
        self._runner = ModelRunner(model, predictor, sampling, self.arena)
        self._scheduler = Scheduler(max_seqs, self._runner.move)
        self._failed: list[Completion] = []
        self.busy_s = 0.0

    @classmethod
    def load(
        cls,
        model: ModelConfig = ModelConfig(),
        policy: PolicyConfig = PolicyConfig(name="full"),
        sampling: SamplingConfig = SamplingConfig(),
        memory: MemoryConfig = MemoryConfig(),
        *,
        gpu_share: float = 1.0,
    ) -> Self:
        """Load the model and allocate the arena, in `gpu_share` of a GPU's memory at most where nothing else bounds it.

        Raises: ConfigError where the settings are wrong or the arena cannot hold one sequence.
        """
        made = make_policy(policy)
        resolved = resolve_model(model, made.requires)
        loaded, predictor = load_model(resolved), load_importance(resolved)
        thoughts = resolved.companions.told_apart
        return cls(loaded, made, predictor, sampling, memory, thoughts, gpu_share=gpu_share)

    @property
    def identity(self) -> Mapping[str, Any]:
        """Of the model, see identity.py."""
        return self._model.identity

    @property
    def max_seqs(self) -> int:
        return self.arena.max_seqs

    @property
    def num_waiting(self) -> int:
        return self._scheduler.num_waiting

    @property
    def num_running(self) -> int:
        return self._scheduler.num_running

    @property
    def stored_tokens(self) -> int:
        """Tokens in the arena now."""
        return self._scheduler.stored_tokens

    @property
    def num_devices(self) -> int:
        return 1

    @property
    def gpu_uuids(self) -> tuple[str, ...]:
        device = self._model.device
        if device.type != "cuda":
            return ()
        return (f"GPU-{torch.cuda.get_device_properties(device).uuid}",)

    @property
    def allocator_peak_bytes(self) -> int | None:
        """Most GPU memory that torch has given to this process's tensors; None on a CPU."""
        device = self._model.device
        return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None

    def close(self) -> None:
        """Give arena and weights back. Nothing may be asked of the engine afterwards."""
        vars(self).clear()
        free_memory()

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        """Completions of `requests` as they finish, reading no more of them ahead than one batch.

        A request that cannot be run gives a completion with finish_reason "error". Sequences that an abandoned
        earlier call left behind are dropped.
        """
        self._scheduler.clear()
        self._failed.clear()
        source, exhausted = iter(requests), False
        while True:
            while not exhausted and self.num_waiting + len(self._failed) < self.max_seqs:
                request = next(source, None)
                if request is None:
                    exhausted = True
                else:
                    self.add_request(request)
            if not self.has_work():
                return
            yield from self.step()

    def add_request(self, request: Request) -> None:
        """Queue a request; if it cannot be run, the next `step` returns its error."""
        try:
            prompt, token_ids = self._renderer.render(request)
            if len(token_ids) > self._longest_prompt:
                raise PromptTooLongError(
                    f"the prompt must have at most {self._longest_prompt} tokens to fit the KV budget of a "
                    f"sequence ({self.arena.capacity}), got {len(token_ids)}"
                )
        except RowError as error:
            self._failed.append(Completion.failed(request, error, seed=self._sampling.seed))
            return
        key = sequence_key(self._sampling.seed, request.request_id, request.sample_index)
        self._scheduler.add(
            Sequence(
                request,
                prompt,
                token_ids,
                key,
                self._renderer.find_answer,
                time.perf_counter(),
                self._max_new_tokens(request),
                EvictionTrace() if request.trace else None,
            )
        )

    def has_work(self) -> bool:
        return bool(self.num_waiting or self._failed or self.num_running)

    @torch.inference_mode()
    def step(self) -> list[Completion]:
        """Admit what fits and process a chunk of new prompts, decode one token for every sequence past its prompt; returns
        the completions that ended."""
        completions, self._failed = self._failed, []
        started = time.perf_counter()
        if prefilling := self._scheduler.prefilling():
            self._prefill(prefilling)
            started = self._charge(prefilling, started)
            completions += self._retire()
        if decoding := self._scheduler.decoding():
            self._decode(list(decoding.values()))
            self._evict(decoding)
            self._charge(decoding, started)
            completions += self._retire()
        return completions

    # ---- the verbs -----------------------------------------------------------------------------

    def _prefill(self, sequences: dict[int, Sequence]) -> None:
        """Process the next chunk of every prompt; the sequences whose prompts end with it begin to decode."""
        token_ids = self._runner.prefill(sequences)
        now = time.perf_counter()
        ready = {}
        for (lane, sequence), token_id in zip(sequences.items(), token_ids, strict=True):
            sequence.store(len(sequence.prompt_chunk))
            # Quantised, what is no number becomes one: a later chunk would not tell.
            if token_id != NO_TOKEN and sequence.cache_len < len(sequence.prompt_token_ids):
                continue
            self._append(lane, sequence, token_id)
            sequence.decoding_at = now
            if sequence.finish_reason is None:
                self._plan_look(sequence)
                ready[lane] = sequence
        if ready:
            self._runner.inputs.write(ready)

    def _decode(self, running: list[Sequence]) -> None:
        token_ids = self._runner.decode(running)
        for lane, (sequence, token_id) in enumerate(zip(running, token_ids, strict=True)):
            sequence.store(1)
            self._append(lane, sequence, token_id)

    def _append(self, lane: int, sequence: Sequence, token_id: int) -> None:
        sequence.append(token_id, self._model.stop_token_ids)
        if sequence.finish_reason == "error":
            # What comes into this lane next may read slots that it has not written, with weight 0: 0 x NaN is NaN.
            self.arena.clear(lane)

    def _evict(self, decoding: dict[int, Sequence]) -> None:
        """Evict from every unfinished sequence of `decoding` that has reached the budget, or that the policy wants to look at, as
        many of them in one operation as memory is left for: the samples of one prompt come to it together."""
        capacity = self.arena.capacity
        due = {
            lane: sequence
            for lane, sequence in decoding.items()
            if (sequence.cache_len == capacity or sequence.num_processed == sequence.look_at)
            and sequence.finish_reason is None
        }
        if not due:
            return
        self._runner.settle()
        lanes = list(due)
        for start in range(0, len(lanes), self._rows_at_once):
            rows = lanes[start : start + self._rows_at_once]
            self._evict_from({lane: due[lane] for lane in rows})

    def _evict_from(self, due: dict[int, Sequence]) -> None:
        for sequence in due.values():
            self._plan_look(sequence)
        slots = self._view(due)
        if (thoughts := self._policy.label(slots)) is not None:
            self.arena.set_column("thought", slots.lanes, thoughts)
        stays = self._policy.stays(slots)
        retained = stays[:, 0, 0].sum(dim=-1).tolist()
        losing = [row for row, s in enumerate(due.values()) if retained[row] < s.cache_len]
        if not losing:
            return
        lanes = [list(due)[row] for row in losing]
        if len(losing) < len(due):
            stays = stays[losing]
        kept_slots = ascending(stays, max(retained[row] for row in losing))
        retained_len = [retained[row] for row in losing]
        self.arena.evict(lanes, kept_slots, retained_len)
        for lane, length in zip(lanes, retained_len, strict=True):
            sequence = due[lane]
            sequence.evict(length)
            if sequence.trace is not None:
                kept_positions = self.arena.positions[lane, ..., : sequence.cache_len]
                sequence.trace.observe(kept_positions, sequence.num_processed)
        self._runner.inputs.shorten(lanes, retained_len)

    def _plan_look(self, sequence: Sequence) -> None:
        sequence.look_at = self._policy.next_look(
            prompt_tokens=len(sequence.prompt_token_ids), num_processed=sequence.num_processed
        )

    def _retire(self) -> list[Completion]:
        return [self._complete(sequence) for sequence in self._scheduler.retire()]

    # ---- parts ---------------------------------------------------------------------------------

    def _free_bytes(self, gpu_share: float, eviction_bytes: int) -> int | None:
        """Our share of a GPU's memory that is left for the arena and the logits beside the largest prefill or eviction; None on
        a CPU."""
        model = self._model
        if model.device.type != "cuda":
            return None
        free_bytes, total_bytes = torch.cuda.mem_get_info(model.device)
        own_bytes = torch.cuda.memory_reserved(model.device)
        room = room_on_gpu(free_bytes, total_bytes, own_bytes, gpu_share)
        activations = prefill_bytes(model.config, model.decoder.dtype, MAX_PREFILL_TOKENS)
        return room - max(activations, eviction_bytes)

    def _max_new_tokens(self, request: Request) -> int:
        largest = self._sampling.max_new_tokens
        return largest if request.max_new_tokens is None else min(request.max_new_tokens, largest)

    def _view(self, sequences: dict[int, Sequence]) -> Slots:
        return Slots(
            arena=self.arena,
            rows=[self._row(lane, sequence) for lane, sequence in sequences.items()],
            options=self._runner.observer.options,
            token_text=self._renderer.token_text,
            thoughts=self._thoughts,
        )

    def _row(self, lane: int, sequence: Sequence) -> Row:
        counts = self._policy.counts(
            prompt_tokens=len(sequence.prompt_token_ids),
            answer_tokens=sequence.answer_tokens,
            cache_len=sequence.cache_len,
        )
        return Row(lane, sequence.cache_len, sequence.seq_len, *counts, sequence.key)

    def _charge(self, sequences: dict[int, Sequence], started: float) -> float:
        """Share the time since `started` equally among `sequences`; returns now."""
        now = time.perf_counter()
        self.busy_s += now - started
        for sequence in sequences.values():
            sequence.device_s += (now - started) / len(sequences)
        return now

    def _complete(self, sequence: Sequence) -> Completion:
        assert sequence.finish_reason is not None
        if sequence.finish_reason == "error":
            return self._fail(sequence)
        token_ids = sequence.completion_token_ids
        text = self._renderer.split(sequence.prompt_token_ids, token_ids, sequence.answer_start)
        shape = self.arena.shape
        now = time.perf_counter()
        return Completion(
            request_id=sequence.request.request_id,
            sample_index=sequence.request.sample_index,
            finish_reason=sequence.finish_reason,
            seed=self._sampling.seed,
            prompt=sequence.prompt,
            reasoning=text.reasoning,
            answer=text.answer,
            completion_token_ids=tuple(token_ids),
            prompt_tokens=len(sequence.prompt_token_ids),
            reasoning_tokens=text.reasoning_tokens,
            completion_tokens=len(token_ids),
            evicted_tokens=sequence.evicted_tokens,
            num_evictions=sequence.num_evictions,
            peak_cache_len=sequence.peak_cache_len,
            peak_kv_bytes=shape.peak_kv_bytes(sequence.peak_cache_len),
            full_kv_bytes=sequence.num_processed * shape.kv_bytes_per_token,
            queue_s=sequence.admitted_at - sequence.added_at,
            prefill_s=sequence.decoding_at - sequence.admitted_at,
            decode_s=now - sequence.decoding_at,
            device_s=sequence.device_s,
            token_trace=self._token_trace(sequence),
        )

    def _fail(self, sequence: Sequence) -> Completion:
        """An error, and the time it took."""
        number = len(sequence.completion_token_ids) + 1
        error = NonFiniteLogitsError(
            f"the logits of completion token {number} must be finite, got NaN or infinity: the model leaves the range of its"
            f" dtype, {str(self._model.decoder.dtype).removeprefix('torch.')}, or its weights are damaged"
        )
        failed = Completion.failed(sequence.request, error, seed=self._sampling.seed)
        return replace(failed, prompt=sequence.prompt, device_s=sequence.device_s)

    def _token_trace(self, sequence: Sequence) -> TokenTrace | None:
        if sequence.trace is None:
            return None
        token_ids = [*sequence.prompt_token_ids, *sequence.completion_token_ids]
        return sequence.trace.record(self._renderer.token_texts(token_ids))

    def _tensor(self, values: Any) -> torch.Tensor:
        return torch.tensor(values, device=self._model.device)
