"""The engine: one decode loop for all policies. Admit, prefill, decode, evict, retire, and again.

Owns the running batch and its timing. Knows nothing about policies, data sets, Ray or grading.
"""

import time
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Sequence as Listed
from typing import Any, Self

import torch

from dynts_batch.config import MemoryConfig, ModelConfig, PolicyConfig, SamplingConfig
from dynts_batch.engine.completions import Completions
from dynts_batch.engine.endings import Endings
from dynts_batch.engine.eviction import Evictor, eviction_bytes
from dynts_batch.engine.eviction_trace import EvictionTrace
from dynts_batch.engine.model.calibration.measured import measure
from dynts_batch.engine.model.loader import LoadedModel, load_companions, load_model
from dynts_batch.engine.model.memory import (
    arena_shape,
    bytes_left,
    bytes_on_gpu,
    plan_max_seqs,
    prefill_bytes,
)
from dynts_batch.engine.model.resolved import resolve_model
from dynts_batch.engine.model_runner import ModelRunner
from dynts_batch.engine.out_of_memory import free_memory, keep_memory
from dynts_batch.engine.prompt import PromptRenderer
from dynts_batch.engine.sampling import NO_TOKEN
from dynts_batch.engine.scheduler import MAX_PREFILL_TOKENS, Scheduler
from dynts_batch.engine.sequence import Sequence
from dynts_batch.engine.shared_prompt import SharedPrompt
from dynts_batch.errors import PromptTooLongError, RowError
from dynts_batch.kvcache.arena import KVArena
from dynts_batch.kvcache.counter_rng import sequence_key
from dynts_batch.kvcache.policies import make_policy
from dynts_batch.kvcache.policy import Policy
from dynts_batch.records import Completion, Request


class Engine:
    """Generates completions for requests. `Engine.load` is the usual way to get one."""

    def __init__(
        self,
        model: LoadedModel,
        policy: Policy,
        sampling: SamplingConfig,
        memory: MemoryConfig,
        companions: Listed[object] = (),
        *,
        gpu_share: float = 1.0,
    ) -> None:
        """`companions`: what was made for the model and the policy needs, such as a predictor."""
        self._model, self._sampling = model, sampling
        self._renderer = PromptRenderer(
            model.tokenizer, model.think_tags, model.chat, model.config.vocab_size
        )
        self._longest_prompt = policy.longest_prompt(memory.max_prompt_tokens)
        is_given = policy.longest_prompt(memory.max_prompt_tokens + 1) > self._longest_prompt
        self._prompt_limit_key = "memory.max_prompt_tokens" if is_given else "policy.budget"
        capacity = policy.capacity(memory.max_prompt_tokens, sampling.max_new_tokens)
        longest = self._longest_prompt + sampling.max_new_tokens
        companions, key_offsets = measure(model, policy, companions, longest)
        dtype = model.decoder.dtype
        shape = arena_shape(model.config, policy, dtype, companions)
        activations = prefill_bytes(model.config, dtype, MAX_PREFILL_TOKENS)
        most_at_once = max(activations, eviction_bytes(policy, shape, capacity))
        free_bytes = bytes_on_gpu(model.device, gpu_share, most_at_once)
        vocab_size = model.config.vocab_size
        max_seqs = plan_max_seqs(shape, capacity, memory, free_bytes, vocab_size)
        self.arena = KVArena(shape, max_seqs, capacity, model.device, key_offsets)
        left = bytes_left(shape, capacity, memory, free_bytes, vocab_size)
        self._shared = SharedPrompt(self.arena, left) if sampling.num_samples > 1 else None
        self._runner = ModelRunner(model, sampling, self.arena, companions)
        self._evictor = Evictor(
            policy, self.arena, self._runner, self._renderer.token_text, companions
        )
        self._completions = Completions(self._renderer, shape, sampling, dtype)
        self._endings = Endings.make(self._renderer, sampling)
        shares_prompts = self._shared is not None
        self._scheduler = Scheduler(max_seqs, self._runner.move, shares_prompts=shares_prompts)
        self._failed: list[Completion] = []
        self.busy_s = 0.0
        if model.device.type == "cpu":
            keep_memory()

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
        """Load the model and allocate the arena, in at most `gpu_share` of a GPU's memory.

        Raises: ConfigError if the settings are wrong or the arena cannot hold one sequence.
        """
        made = make_policy(policy)
        resolved = resolve_model(model, made.companions)
        loaded, companions = load_model(resolved), load_companions(resolved)
        return cls(loaded, made, sampling, memory, companions, gpu_share=gpu_share)

    @property
    def identity(self) -> Mapping[str, Any]:
        """The model's identity, see identity.py."""
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
        """Tokens that the arena holds now."""
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
        """Most GPU memory that torch has allocated in this process; None on a CPU."""
        device = self._model.device
        return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None

    def close(self) -> None:
        """Free arena and weights. The engine must not be used afterwards."""
        vars(self).clear()
        free_memory()

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        """Completions of `requests` as they finish. It reads ahead at most one batch of requests.

        A request that cannot be run gives a completion with finish_reason "error". Sequences that
        an abandoned earlier call left behind are dropped.
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
        """Queue a request. If it cannot be run, the next `step` returns its error."""
        try:
            prompt, token_ids = self._renderer.render(request)
            if len(token_ids) > self._longest_prompt:
                raise PromptTooLongError(
                    f"the prompt must have at most {self._longest_prompt} tokens, got"
                    f" {len(token_ids)}: raise {self._prompt_limit_key}"
                )
            self._check_positions(len(token_ids) + self._max_new_tokens(request))
        except RowError as error:
            self._failed.append(Completion.failed(request, error, seed=self._sampling.seed))
            return
        key = sequence_key(self._sampling.seed, request.request_id, request.sample_index)
        sequence = Sequence(
            request,
            prompt,
            token_ids,
            key,
            self._renderer.find_answer,
            time.perf_counter(),
            self._max_new_tokens(request),
            # The first decode step fills the lane, and an eviction follows.
            self.arena.capacity - 1,
            EvictionTrace() if request.trace else None,
        )
        self._endings.begin(sequence)
        self._scheduler.add(sequence)

    def has_work(self) -> bool:
        return bool(self.num_waiting or self._failed or self.num_running)

    @torch.inference_mode()
    def step(self) -> list[Completion]:
        """Admit what fits, prefill a chunk, decode one token each. Returns what has ended."""
        completions, self._failed = self._failed, []
        started = time.perf_counter()
        shared = self._shared
        if shared is not None and (copying := self._scheduler.copying(shared.token_ids)):
            self._prefill(copying, shared)
            started = self._charge(copying, started)
            completions += self._retire()
        if prefilling := self._scheduler.prefilling():
            self._prefill(prefilling)
            started = self._charge(prefilling, started)
            completions += self._retire()
        if decoding := self._scheduler.decoding():
            self._decode(list(decoding.values()))
            self._evictor.evict(decoding)
            self._charge(decoding, started)
            completions += self._retire()
        return completions

    # ---- the verbs -----------------------------------------------------------------------------

    def _prefill(self, sequences: dict[int, Sequence], shared: SharedPrompt | None = None) -> None:
        """Process the next chunk of every prompt, or copy the one that all share."""
        runner = self._runner
        found = runner.prefill(sequences) if shared is None else runner.copy(sequences, shared)
        drawn, begun = zip(*found, strict=True), {}
        for (lane, sequence), (token_id, logprob) in zip(sequences.items(), drawn, strict=True):
            sequence.store(len(sequence.prompt_chunk) if shared is None else shared.num_tokens)
            # Quantising turns NaN into an ordinary number, which a later chunk could not detect.
            if token_id != NO_TOKEN and sequence.cache_len < sequence.prefill_tokens:
                continue
            self._append(lane, sequence, token_id, logprob)
            if sequence.finish_reason != "error":
                begun[lane] = sequence
            if sequence.finish_reason is None:
                self._evictor.plan_look(sequence)
        if self._shared is not None and shared is None:
            self._keep_prompt(self._shared, begun)
        if ready := {lane: s for lane, s in begun.items() if s.finish_reason is None}:
            self._runner.inputs.write(ready)

    def _keep_prompt(self, shared: SharedPrompt, begun: dict[int, Sequence]) -> None:
        """Keep the last of the prompts just processed that the next sequence may have too."""
        for lane, sequence in reversed(begun.items()):
            if self._scheduler.is_next(sequence.prompt_token_ids):
                shared.keep(lane, sequence, self._runner.prompt_ends[lane])
                return

    def _decode(self, running: list[Sequence]) -> None:
        drawn = zip(*self._runner.decode(running), strict=True)
        replaced: dict[int, int] = {}
        for lane, (sequence, (token_id, logprob)) in enumerate(zip(running, drawn, strict=True)):
            sequence.store(1)
            self._append(lane, sequence, token_id, logprob)
            if sequence.newest_token_id != token_id:  # forced, or amid the prompt
                replaced[lane] = sequence.newest_token_id
        if replaced:
            self._runner.inputs.replace(replaced)

    def _append(self, lane: int, sequence: Sequence, token_id: int, logprob: float | None) -> None:
        sequence.append(token_id, self._model.stop_token_ids, logprob)
        if len(sequence.completion_token_ids) == 1:
            sequence.decoding_at = time.perf_counter()
        self._endings.watch(sequence)
        if sequence.finish_reason == "error":
            # The lane's next sequence may read unwritten slots with weight 0, but 0 x NaN is NaN.
            self.arena.clear(lane)

    def _retire(self) -> list[Completion]:
        return [self._completions.of(sequence) for sequence in self._scheduler.retire()]

    # ---- parts ---------------------------------------------------------------------------------

    def _max_new_tokens(self, request: Request) -> int:
        largest = self._sampling.max_new_tokens
        return largest if request.max_new_tokens is None else min(request.max_new_tokens, largest)

    def _check_positions(self, num_tokens: int) -> None:
        """Raises: PromptTooLongError if the model has learned fewer positions."""
        positions = self._model.num_positions
        if positions is not None and num_tokens > positions:
            raise PromptTooLongError(
                f"the prompt and sampling.max_new_tokens must fit the {positions} positions that"
                f" the model has learned, got {num_tokens} tokens"
            )

    def _charge(self, sequences: dict[int, Sequence], started: float) -> float:
        """Share the time since `started` equally among `sequences`. Returns now."""
        now = time.perf_counter()
        self.busy_s += now - started
        for sequence in sequences.values():
            sequence.device_s += (now - started) / len(sequences)
        return now
