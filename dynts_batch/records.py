"""Request and Completion: what goes into an engine and what comes out, one of each per sequence.

Plain data for the engine, the runner and library users. Knows nothing about Arrow, Ray or torch.
data/writer.py adds the other columns of an output row (source, grade, cost, place).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

FinishReason = Literal["stop", "length", "loop", "error", "skipped"]
#: Finish reasons without an answer: it failed, or was not needed (sampling.stop_when).
NOT_RUN = ("error", "skipped")
ForcedEnd = Literal["budget", "loop"]


class TokenTrace(TypedDict):
    """What became of every token of one sequence, prompt first. The lists have the same length."""

    token_texts: list[str]
    """Joined, they are the text, special tokens included. A character of several tokens stands in
    the last one."""
    evicted_at: list[int | None]
    """How many tokens the sequence had when the last layer and head dropped this one. None:
    never."""
    half_evicted_at: list[int | None]
    """How many it had when fewer than half of the layers and heads still held this one. None:
    never. It is `evicted_at` if all keep the same tokens."""
    stored_len: list[int]
    """How many tokens each layer and head held once this one was stored, and the eviction over that
    it may have caused. The newest token is never stored: its count is the one before."""
    kept_share: list[float]
    """Share of the layers and heads that hold the token at the end. It is 0 or 1 if all keep the
    same tokens."""


@dataclass(frozen=True, slots=True)
class Request:
    """One sample of one prompt.

    Exactly one of `prompt` (text), `messages` (chat turns, each with `role` and `content`) and
    `prompt_token_ids` is given. The engine's prompt renderer rejects anything else.
    """

    request_id: str
    sample_index: int = 0
    prompt: str | None = None
    messages: Sequence[Mapping[str, Any]] | None = None
    prompt_token_ids: Sequence[int] | None = None
    max_new_tokens: int | None = None
    """Most new tokens, if below the run's `sampling.max_new_tokens`. None: the run's."""
    trace: bool = False
    """Record which tokens were evicted when."""
    chat_template_kwargs: Mapping[str, Any] | None = None
    """Variables of the chat template for this request. They win over the run's."""


@dataclass(frozen=True, slots=True)
class Completion:
    """The result of one request.

    Counts are tokens, `*_bytes` bytes of KV memory and `*_s` seconds. A failed request
    (`finish_reason == "error"`) has `error_type` and `error_message`, and no text.
    """

    request_id: str
    sample_index: int
    finish_reason: FinishReason
    seed: int | None = None
    """The run's sampling seed. With request_id and sample_index it fixes the random draws."""
    prompt: str | None = None
    """The text the model read, chat template applied; None if token ids were given."""
    reasoning: str | None = None
    """Text before the end of thinking."""
    answer: str | None = None
    """Text after the end of thinking; None if thinking never ended."""
    error_type: str | None = None
    error_message: str | None = None
    completion_token_ids: tuple[int, ...] = ()
    forced_end: ForcedEnd | None = None
    """Why the engine, and not the model, ended the thinking."""
    logprobs: tuple[float | None, ...] | None = None
    """Log-probability of each completion token under the distribution that it was drawn from. None
    for a forced token. Only in a run with `sampling.logprobs`."""
    prompt_tokens: int = 0
    reasoning_tokens: int = 0
    completion_tokens: int = 0
    """All generated tokens: reasoning and answer."""
    evicted_tokens: int = 0
    num_evictions: int = 0
    num_preemptions: int | None = 0
    """How often an engine that reserves no room took away this sequence's cache, to compute it
    again later."""
    recomputed_tokens: int | None = 0
    """Tokens that went through the model again because of that. None: the engine cannot tell."""
    peak_cache_len: int = 0
    """Most tokens ever stored for this sequence."""
    peak_kv_bytes: int = 0
    full_kv_bytes: int = 0
    """KV bytes that this sequence would have held without eviction."""
    queue_s: float = 0.0
    prefill_s: float = 0.0
    decode_s: float = 0.0
    device_s: float = 0.0
    """This sequence's share of the time of its batches. Shares sum to the total."""
    token_trace: TokenTrace | None = None
    """Only for a request with `trace`."""

    @classmethod
    def skipped(cls, request_id: str, sample_index: int) -> Completion:
        """The completion of a sample that its question does not need."""
        return cls(request_id, sample_index, finish_reason="skipped")

    @classmethod
    def failed(cls, request: Request, error: Exception, *, seed: int | None = None) -> Completion:
        """The completion of a request that ended in `error`."""
        return cls(
            request_id=request.request_id,
            sample_index=request.sample_index,
            finish_reason="error",
            seed=seed,
            prompt=request.prompt,
            error_type=type(error).__name__,
            error_message=str(error),
        )
