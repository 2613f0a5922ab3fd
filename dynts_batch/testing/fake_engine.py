"""An engine without a model: Engine's interface, to test everything except decoding.

Its completions are a function of (seed, request_id, sample_index, prompt) alone. So a run on it can
be interrupted, resumed and compared. It answers with the number of characters of the prompt. One
sample in eight is wrong, and one in eight never stops thinking. Prompts may ask for trouble, to
prove that a run survives it:

    [[kill]]    the process is killed as soon as the request is admitted
    [[raise]]   the step that admits the request raises
    [[hang]]    the step that admits the request never ends
    [[oom:N]]   a step with the request and more than N - 1 others runs out of memory

It refuses every prompt above the budget, also where a policy may evict from it. Knows nothing about
torch.
"""

from __future__ import annotations

import hashlib
import os
import re
import signal
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from dynts_batch.config import Config, MemoryConfig, PolicyConfig, SamplingConfig
from dynts_batch.errors import BadRowError, PromptTooLongError, RowError
from dynts_batch.records import Completion, FinishReason, Request, TokenTrace
from dynts_batch.testing.fake_model import NAME, FakeSettings

KV_BYTES_PER_TOKEN = 1024
DEFAULT_MAX_SEQS = 32
_OUT_OF_MEMORY = re.compile(r"\[\[oom:(\d+)\]\]")


@dataclass(frozen=True)
class FakeArena:
    """The memory that a real arena of this size would take."""

    max_seqs: int
    capacity: int

    @property
    def num_bytes(self) -> int:
        return self.max_seqs * self.capacity * KV_BYTES_PER_TOKEN


@dataclass(slots=True)
class _Sequence:
    """A request in flight. All of its completion except the times is known from the start."""

    request: Request
    prompt: str
    prompt_tokens: int
    completion_tokens: int
    draw: int
    added_s: float
    admitted_s: float = 0.0
    generated: int = 0
    device_s: float = 0.0

    @property
    def finish_reason(self) -> FinishReason:
        return "length" if self.draw % 8 == 0 else "stop"


class FakeEngine:
    """See Engine: add requests, then step until none is left."""

    def __init__(
        self,
        settings: FakeSettings,
        policy: PolicyConfig,
        sampling: SamplingConfig,
        memory: MemoryConfig,
        num_devices: int = 1,
    ) -> None:
        self.num_devices = num_devices
        self._settings, self._sampling = settings, sampling
        # A test holds this equal to the policy class's own capacity. Asking that class would cost
        # every fake worker the import of torch.
        capacity = policy.budget
        if policy.name == "full" or capacity is None:
            capacity = memory.max_prompt_tokens + sampling.max_new_tokens
        self.arena = FakeArena(memory.max_seqs or DEFAULT_MAX_SEQS, capacity)
        self.busy_s = 0.0
        self._waiting: deque[_Sequence] = deque()
        self._running: list[_Sequence] = []
        self._failed: list[Completion] = []

    @classmethod
    def load(cls, config: Config) -> Self:
        """Raises: ConfigError if the settings in `model.name` are wrong."""
        settings = FakeSettings.parse(config.model.name)
        num_devices = max(1, int(config.workers.num_gpus or 0))
        return cls(settings, config.policy, config.sampling, config.memory, num_devices)

    @property
    def identity(self) -> Mapping[str, Any]:
        return {"name": NAME}

    @property
    def max_seqs(self) -> int:
        return self.arena.max_seqs

    @property
    def gpu_uuids(self) -> tuple[str, ...]:
        return ()

    @property
    def allocator_peak_bytes(self) -> int | None:
        return None

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    @property
    def num_running(self) -> int:
        return len(self._running)

    @property
    def stored_tokens(self) -> int:
        """Tokens in the arena now."""
        return sum(min(s.prompt_tokens + s.generated, self.arena.capacity) for s in self._running)

    def has_work(self) -> bool:
        return bool(self._waiting or self._running or self._failed)

    def add_request(self, request: Request) -> None:
        """Queue a request. If it cannot be run, the next `step` returns its error."""
        try:
            self._waiting.append(self._sequence(request))
        except RowError as error:
            self._failed.append(Completion.failed(request, error, seed=self._sampling.seed))

    def step(self) -> list[Completion]:
        """Admit what fits and give every running sequence one token."""
        completions, self._failed = self._failed, []
        self._admit()
        if not self._running:
            return completions
        self._run_out_of_memory()
        if self._settings.step_s and not self._settings.simulated:
            time.sleep(self._settings.step_s)
        self.busy_s += self._settings.step_s
        for sequence in self._running:
            sequence.generated += 1
            sequence.device_s += self._settings.step_s / len(self._running)
        ended = [s for s in self._running if s.generated == s.completion_tokens]
        self._running = [s for s in self._running if s.generated < s.completion_tokens]
        return completions + [self._complete(sequence) for sequence in ended]

    def close(self) -> None:
        self._running, self._failed = [], []
        self._waiting.clear()

    def _sequence(self, request: Request) -> _Sequence:
        prompt = request.prompt
        if request.messages is not None:
            prompt = "\n".join(str(message["content"]) for message in request.messages)
        if prompt is None:
            raise BadRowError("the fake engine needs a prompt or messages")
        num_tokens = len(prompt.split())
        if num_tokens >= self.arena.capacity:
            raise PromptTooLongError(
                f"the prompt must have fewer than {self.arena.capacity} tokens, got {num_tokens}"
            )
        key = f"{self._sampling.seed}\0{request.sample_index}\0{request.request_id}\0{prompt}"
        draw = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=7).digest(), "little")
        limit = self._sampling.max_new_tokens
        length = limit if draw % 8 == 0 else 1 + (draw >> 8) % limit
        return _Sequence(request, prompt, num_tokens, length, draw, self._now_s())

    def _admit(self) -> None:
        while self._waiting and len(self._running) < self.max_seqs:
            sequence = self._waiting.popleft()
            sequence.admitted_s = self._now_s()
            self._running.append(sequence)
            self._log(sequence.request)
            if "[[kill]]" in sequence.prompt:
                os.kill(os.getpid(), signal.SIGKILL)
            if "[[raise]]" in sequence.prompt:
                raise RuntimeError("the prompt asked for an exception")
            while "[[hang]]" in sequence.prompt:
                time.sleep(1)

    def _now_s(self) -> float:
        """The clock. Simulated time passes with the steps."""
        return self.busy_s if self._settings.simulated else time.perf_counter()

    def _log(self, request: Request) -> None:
        if self._settings.log is not None:
            with open(self._settings.log, "a") as file:
                file.write(f"{os.getpid()} {request.sample_index} {request.request_id}\n")

    def _run_out_of_memory(self) -> None:
        for sequence in self._running:
            if match := _OUT_OF_MEMORY.search(sequence.prompt):
                most = int(match[1])
                if len(self._running) > most:
                    raise MemoryError(f"{len(self._running)} sequences, {most} fit")

    def _complete(self, sequence: _Sequence) -> Completion:
        number = len(sequence.prompt) + (sequence.draw % 8 == 1)
        stopped = sequence.finish_reason == "stop"
        total = sequence.prompt_tokens + sequence.completion_tokens - 1
        peak = min(total, self.arena.capacity)
        return Completion(
            request_id=sequence.request.request_id,
            sample_index=sequence.request.sample_index,
            finish_reason=sequence.finish_reason,
            seed=self._sampling.seed,
            prompt=sequence.prompt,
            reasoning=f"I count the characters. [{sequence.draw:x}]",
            answer=f"\\boxed{{{number}}}" if stopped else None,
            completion_token_ids=(sequence.draw % 50257,) * sequence.completion_tokens,
            prompt_tokens=sequence.prompt_tokens,
            reasoning_tokens=sequence.completion_tokens - stopped,
            completion_tokens=sequence.completion_tokens,
            evicted_tokens=total - peak,
            num_evictions=int(total > peak),
            peak_cache_len=peak,
            peak_kv_bytes=peak * KV_BYTES_PER_TOKEN,
            full_kv_bytes=total * KV_BYTES_PER_TOKEN,
            queue_s=sequence.admitted_s - sequence.added_s,
            decode_s=self._now_s() - sequence.admitted_s,
            device_s=sequence.device_s,
            token_trace=self._token_trace(sequence) if sequence.request.trace else None,
        )

    def _token_trace(self, sequence: _Sequence) -> TokenTrace:
        """The prompt and the numbers. The oldest tokens that no longer fit are gone."""
        generated = [f" {number}" for number in range(sequence.completion_tokens)]
        texts = [*(f"{word} " for word in sequence.prompt.split()), *generated]
        last = len(texts) - 1  # the newest token is never stored
        capacity = self.arena.capacity
        gone = last - min(last, capacity)
        evicted_at = [capacity + i + 1 if i < gone else None for i in range(last + 1)]
        return {
            "token_texts": texts,
            "evicted_at": evicted_at,
            "half_evicted_at": evicted_at,
            "kept_share": [float(i >= gone) for i in range(last + 1)],
            "stored_len": [min(i, last, capacity) for i in range(1, last + 2)],
        }
