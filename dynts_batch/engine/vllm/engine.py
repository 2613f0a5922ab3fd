"""The full cache by vLLM: requests in, completions out, each with the figures of the arena's rows.

Owns the requests in flight and their shares of the time. Scheduling, paging and sampling are
vLLM's. Its seeded draws are its own, so sampled rows of two engines are comparable as statistics
only. Greedy rows are the same in float32, up to ties.
"""

import gc
import time
from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch

from dynts_batch.config import Config
from dynts_batch.engine.prompt import PromptRenderer
from dynts_batch.engine.repetition import MAX_BLOCK_TOKENS
from dynts_batch.engine.vllm.arguments import engine_arguments
from dynts_batch.engine.vllm.blocks import Held, PagedCache
from dynts_batch.engine.vllm.library import import_vllm
from dynts_batch.engine.vllm.loading import start_vllm
from dynts_batch.engine.vllm.model import VllmModel, resolve_vllm_model
from dynts_batch.errors import (
    EngineError,
    NonFiniteLogitsError,
    PromptTooLongError,
    RowError,
)
from dynts_batch.kvcache.counter_rng import sequence_key
from dynts_batch.records import Completion, FinishReason, Request

_FINISH_REASONS: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "repetition": "loop",
}


@dataclass(slots=True)
class InFlight:
    """A request in vLLM's hands, under the id that vLLM gave it."""

    request: Request
    prompt: str | None
    prompt_token_ids: list[int]
    vllm_id: str
    device_s: float = 0.0
    held: Held = field(default_factory=Held)


class VllmEngine:
    """An `LLMEngine` in this process. `VllmEngine.load` makes one."""

    def __init__(self, llm: Any, model: VllmModel, config: Config) -> None:
        self._llm, self._config = llm, config
        self.identity = model.identity
        vocab_size = llm.vllm_config.model_config.get_vocab_size()
        self._renderer = PromptRenderer(model.tokenizer, model.think_tags, model.chat, vocab_size)
        self._stop_token_ids = sorted(model.stop_token_ids)
        self.arena = PagedCache(llm.engine_core.engine_core.scheduler, self.num_devices)
        self.max_seqs: int = llm.vllm_config.scheduler_config.max_num_seqs
        self._shares_prefixes = bool(llm.vllm_config.cache_config.enable_prefix_caching)
        self._in_flight: dict[str, InFlight] = {}
        self._failed: list[Completion] = []
        self._num_added = 0
        self._adapter = _adapter(config)
        self.busy_s = 0.0

    @classmethod
    def load(cls, config: Config, *, gpu_share: float = 1.0) -> Self:
        """Load the model and allocate the blocks.

        Raises: ConfigError where vLLM refuses the model or the settings.
        """
        model = resolve_vllm_model(config)
        arguments = engine_arguments(
            config, dtype=model.dtype, on_gpu=model.on_gpu, gpu_share=gpu_share
        )
        return cls(start_vllm({**arguments, "model": model.path}), model, config)

    @property
    def num_waiting(self) -> int:
        return self.arena.num_waiting

    @property
    def num_running(self) -> int:
        return self.arena.num_running

    @property
    def stored_tokens(self) -> int:
        return self.arena.stored_tokens

    @property
    def num_devices(self) -> int:
        return int(self._llm.vllm_config.parallel_config.world_size)

    @property
    def gpu_uuids(self) -> tuple[str, ...]:
        if not import_vllm("vllm.platforms").current_platform.is_cuda():
            return ()
        ranks = range(self.num_devices)
        return tuple(f"GPU-{torch.cuda.get_device_properties(rank).uuid}" for rank in ranks)

    @property
    def allocator_peak_bytes(self) -> int | None:
        """None on a CPU, and where other processes hold the GPUs' memory."""
        if self.num_devices > 1 or not self.gpu_uuids:
            return None
        return torch.cuda.max_memory_allocated()

    def has_work(self) -> bool:
        return bool(self._failed or self._in_flight)

    def add_request(self, request: Request) -> None:
        """Queue a request; if it cannot be run, the next `step` returns its error."""
        try:
            self._add(request)
        except RowError as error:
            seed = self._config.sampling.seed
            self._failed.append(Completion.failed(request, error, seed=seed))

    def step(self) -> list[Completion]:
        """One step of vLLM's scheduler; returns the completions that ended."""
        completions, self._failed = self._failed, []
        if not self._in_flight:
            return completions
        before, started = self.arena.running(), time.perf_counter()
        outputs = self._llm.step()
        took = time.perf_counter() - started
        by_vllm_id = {flight.vllm_id: flight for flight in self._in_flight.values()}
        self.arena.observe({name: flight.held for name, flight in by_vllm_id.items()})
        ended = {self._in_flight[output.request_id].vllm_id for output in outputs}
        self._charge([by_vllm_id[name] for name in before | self.arena.running() | ended], took)
        return completions + [self._complete(output) for output in outputs]

    def close(self) -> None:
        """Give its memory back. Nothing may be asked of it afterwards."""
        self._llm.engine_core.shutdown()
        del self._llm, self.arena
        gc.collect()

    # ---- parts ---------------------------------------------------------------------------------

    def _add(self, request: Request) -> None:
        prompt, token_ids = self._renderer.render(request)
        longest = self._config.memory.max_prompt_tokens
        if len(token_ids) > longest:
            raise PromptTooLongError(
                f"the prompt must have at most memory.max_prompt_tokens ({longest}) tokens, got"
                f" {len(token_ids)}"
            )
        self._num_added += 1
        name = str(self._num_added)
        vllm_id = self._llm.add_request(
            name,
            {"prompt_token_ids": token_ids},
            self._sampling_params(request),
            lora_request=self._adapter,
        )
        self._in_flight[name] = InFlight(request, prompt, token_ids, vllm_id)

    def _sampling_params(self, request: Request) -> Any:
        sampling, vllm = self._config.sampling, import_vllm("vllm.sampling_params")
        key = sequence_key(sampling.seed, request.request_id, request.sample_index)
        largest = sampling.max_new_tokens
        return vllm.SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            min_p=sampling.min_p,
            max_tokens=min(request.max_new_tokens or largest, largest),
            seed=key & (2**63 - 1),
            stop_token_ids=self._stop_token_ids,
            detokenize=False,
            output_kind=vllm.RequestOutputKind.FINAL_ONLY,
            repetition_detection=self._loops(vllm),
        )

    def _loops(self, vllm: Any) -> Any:
        sampling = self._config.sampling
        if not sampling.loop_repeats:
            return None
        return vllm.RepetitionDetectionParams(
            max_pattern_size=MAX_BLOCK_TOKENS,
            min_pattern_size=sampling.loop_min_tokens,
            min_count=sampling.loop_repeats,
        )

    def _charge(self, flights: list[InFlight], took: float) -> None:
        """Share a step's time equally among the sequences that were in it."""
        self.busy_s += took
        for flight in flights or self._in_flight.values():
            flight.device_s += took / (len(flights) or len(self._in_flight))

    def _complete(self, output: Any) -> Completion:
        flight, generated = self._in_flight.pop(output.request_id), output.outputs[0]
        token_ids, metrics = list(generated.token_ids), output.metrics
        if error := _error(generated.finish_reason, is_corrupted=metrics.is_corrupted):
            failed = Completion.failed(flight.request, error, seed=self._config.sampling.seed)
            return replace(failed, prompt=flight.prompt, device_s=flight.device_s)
        text = self._renderer.split(
            flight.prompt_token_ids,
            token_ids,
            self._renderer.first_answer(token_ids),
            is_thinking=self._renderer.continues_thinking(flight.request),
        )
        stored = len(flight.prompt_token_ids) + len(token_ids) - 1
        is_known = not (self._shares_prefixes and flight.held.num_preemptions)
        return Completion(
            request_id=flight.request.request_id,
            sample_index=flight.request.sample_index,
            finish_reason=_FINISH_REASONS[generated.finish_reason],
            seed=self._config.sampling.seed,
            prompt=flight.prompt,
            reasoning=text.reasoning,
            answer=text.answer,
            completion_token_ids=tuple(token_ids),
            prompt_tokens=len(flight.prompt_token_ids),
            reasoning_tokens=text.reasoning_tokens,
            completion_tokens=len(token_ids),
            peak_cache_len=stored,
            peak_kv_bytes=self.arena.peak_bytes(flight.held, stored),
            full_kv_bytes=self.arena.token_bytes(stored),
            num_preemptions=flight.held.num_preemptions,
            recomputed_tokens=flight.held.dropped_tokens if is_known else None,
            queue_s=metrics.scheduled_ts - metrics.queued_ts,
            prefill_s=metrics.first_token_ts - metrics.scheduled_ts,
            decode_s=metrics.last_token_ts - metrics.first_token_ts,
            device_s=flight.device_s,
        )


def _error(finish_reason: str, *, is_corrupted: bool) -> RowError | None:
    if is_corrupted:
        return NonFiniteLogitsError(
            "the logits of the completion must be finite, got NaN: the model leaves the range of"
            " its dtype, or its weights are damaged"
        )
    if finish_reason not in _FINISH_REASONS:
        return EngineError(f"vLLM ended the request with {finish_reason!r}")
    return None


def _adapter(config: Config) -> Any:
    """The LoRA adapter of the whole run. Batches that mix requests with and without one are not
    safe on every build."""
    if config.engine.lora is None:
        return None
    return import_vllm("vllm.lora.request").LoRARequest("adapter", 1, config.engine.lora)
