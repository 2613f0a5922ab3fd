"""Makes the completion of a finished sequence: its texts, its counts and its times."""

import time
from dataclasses import replace

import torch

from dynts_batch.config import SamplingConfig
from dynts_batch.engine.prompt import PromptRenderer
from dynts_batch.engine.sequence import Sequence
from dynts_batch.errors import NonFiniteLogitsError
from dynts_batch.kvcache.arena_shape import ArenaShape
from dynts_batch.records import Completion, TokenTrace


class Completions:
    """For one engine. `dtype` is the model's."""

    def __init__(
        self,
        renderer: PromptRenderer,
        shape: ArenaShape,
        sampling: SamplingConfig,
        dtype: torch.dtype,
    ) -> None:
        self._renderer, self._shape, self._dtype = renderer, shape, dtype
        self._seed, self._has_logprobs = sampling.seed, sampling.logprobs

    def of(self, sequence: Sequence) -> Completion:
        assert sequence.finish_reason is not None
        if sequence.finish_reason == "error":
            return self._failed(sequence)
        token_ids = sequence.completion_token_ids
        text = self._renderer.split(
            sequence.prompt_token_ids,
            token_ids,
            sequence.answer_start,
            is_thinking=self._renderer.continues_thinking(sequence.request),
        )
        now = time.perf_counter()
        return Completion(
            request_id=sequence.request.request_id,
            sample_index=sequence.request.sample_index,
            finish_reason=sequence.finish_reason,
            seed=self._seed,
            prompt=sequence.prompt,
            reasoning=text.reasoning,
            answer=text.answer,
            completion_token_ids=tuple(token_ids),
            forced_end=sequence.forced_end,
            logprobs=tuple(sequence.logprobs) if self._has_logprobs else None,
            prompt_tokens=len(sequence.prompt_token_ids),
            reasoning_tokens=text.reasoning_tokens,
            completion_tokens=len(token_ids),
            evicted_tokens=sequence.evicted_tokens,
            num_evictions=sequence.num_evictions,
            peak_cache_len=sequence.peak_cache_len,
            peak_kv_bytes=self._shape.peak_kv_bytes(sequence.peak_cache_len),
            full_kv_bytes=sequence.num_processed * self._shape.kv_bytes_per_token,
            queue_s=sequence.admitted_at - sequence.added_at,
            prefill_s=sequence.decoding_at - sequence.admitted_at,
            decode_s=now - sequence.decoding_at,
            device_s=sequence.device_s,
            token_trace=self._token_trace(sequence),
        )

    def _failed(self, sequence: Sequence) -> Completion:
        """An error completion, with the time it took."""
        token = f"completion token {len(sequence.completion_token_ids) + 1}"
        if sequence.is_reading:
            token = f"prompt token {sequence.seq_len + 1}"
        error = NonFiniteLogitsError(
            f"the logits of {token} must be finite, got NaN or infinity: the"
            f" model leaves the range of its dtype, {str(self._dtype).removeprefix('torch.')}, or"
            " its weights are damaged"
        )
        failed = Completion.failed(sequence.request, error, seed=self._seed)
        return replace(failed, prompt=sequence.prompt, device_s=sequence.device_s)

    def _token_trace(self, sequence: Sequence) -> TokenTrace | None:
        if sequence.trace is None:
            return None
        token_ids = [*sequence.prompt_token_ids, *sequence.completion_token_ids]
        return sequence.trace.record(self._renderer.token_texts(token_ids))
