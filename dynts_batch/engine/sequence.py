"""One request in flight: its tokens, its place in the arena and its counters. Plain Python, no
tensors."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from dynts_batch.engine.eviction_trace import EvictionTrace
from dynts_batch.engine.sampling import NO_TOKEN
from dynts_batch.records import FinishReason, ForcedEnd, Request

#: Most tokens of one prompt in a step. While other sequences decode, it is the most of all new
#: prompts together, which bounds how long those wait. A constant, so that how a prompt is cut does
#: not depend on what else runs.
PREFILL_CHUNK = 512


@dataclass(slots=True)
class Sequence:
    """Logical state (`*_token_ids`, `seq_len`) and physical state (`cache_len`) of one request."""

    request: Request
    prompt: str | None
    prompt_token_ids: list[int]
    key: int
    """Key of its randomness, from (seed, request_id, sample_index)."""
    find_answer: Callable[[list[int]], int | None]
    """The index of the first token of the end of thinking, if the newest completion token completes
    it."""
    added_at: float
    max_new_tokens: int
    prefill_limit: int
    """Prompt tokens that its lane can store before the first eviction."""
    trace: EvictionTrace | None = None
    completion_token_ids: list[int] = field(default_factory=list)
    cache_len: int = 0
    num_read: int = 0
    """Prompt tokens beyond `prefill_tokens` that it was given to process, one after another."""
    answer_start: int | None = None
    """Index in `completion_token_ids` of the first token of the end of thinking."""
    look_at: int | None = None
    """Number of processed tokens at which the policy looks at it, whether the budget is reached or
    not."""
    finish_reason: FinishReason | None = None
    forced_token_ids: list[int] = field(default_factory=list)
    """Token ids that the engine writes next, in place of the model's."""
    forced_end: ForcedEnd | None = None
    logprobs: list[float | None] = field(default_factory=list)
    """Of the completion tokens; None if not asked for, or if the token was forced."""
    num_evictions: int = 0
    evicted_tokens: int = 0
    peak_cache_len: int = 0
    admitted_at: float = 0.0
    decoding_at: float = 0.0
    device_s: float = 0.0

    @property
    def seq_len(self) -> int:
        """Prompt and completion tokens so far. The newest one's keys are stored by the next
        step."""
        return self.prefill_tokens + self.num_read + len(self.completion_token_ids)

    @property
    def prefill_tokens(self) -> int:
        """Prompt tokens that are processed in chunks. The others follow one by one, with evictions
        between them, as if the model had written them."""
        return min(len(self.prompt_token_ids), self.prefill_limit)

    @property
    def is_decoding(self) -> bool:
        """Whether it processes one token after another."""
        return bool(self.num_read or self.completion_token_ids)

    @property
    def is_reading(self) -> bool:
        """Whether more of its prompt follows the newest token."""
        return self.prefill_tokens + self.num_read < len(self.prompt_token_ids)

    @property
    def newest_token_id(self) -> int:
        """The token to process next, once it is decoding."""
        if self.completion_token_ids:
            return self.completion_token_ids[-1]
        return self.prompt_token_ids[self.seq_len - 1]

    @property
    def prompt_chunk(self) -> list[int]:
        """The prompt tokens to process next, until it is decoding."""
        stop = min(self.cache_len + PREFILL_CHUNK, self.prefill_tokens)
        return self.prompt_token_ids[self.cache_len : stop]

    @property
    def num_processed(self) -> int:
        """Tokens that went through the model: what a full cache would hold."""
        return self.seq_len - 1

    @property
    def answer_tokens(self) -> int:
        """Processed tokens from the end of thinking on."""
        if self.answer_start is None:
            return 0
        return self.num_processed - len(self.prompt_token_ids) - self.answer_start

    def store(self, num_tokens: int) -> None:
        self.cache_len += num_tokens
        self.peak_cache_len = max(self.peak_cache_len, self.cache_len)

    def evict(self, retained_len: int) -> None:
        self.num_evictions += 1
        self.evicted_tokens += self.cache_len - retained_len
        self.cache_len = retained_len

    def force(self, token_ids: Iterable[int], reason: ForcedEnd) -> None:
        """End its thinking with `token_ids` before the model goes on."""
        self.forced_token_ids, self.forced_end = list(token_ids), reason

    def append(
        self, token_id: int, stop_token_ids: frozenset[int], logprob: float | None = None
    ) -> None:
        """Take the new token, or the one that is forced in its place, and notice the ends it
        brings. Amid the prompt, the prompt's next token takes its place.

        `NO_TOKEN` is an error and the end.
        """
        if token_id == NO_TOKEN:
            self.finish_reason = "error"
            return
        if self.is_reading:
            self.num_read += 1
            return
        is_forced = bool(self.forced_token_ids)
        if is_forced:
            token_id, logprob = self.forced_token_ids.pop(0), None
        self.completion_token_ids.append(token_id)
        self.logprobs.append(logprob)
        if self.answer_start is None:
            self.answer_start = self.find_answer(self.completion_token_ids)
        if token_id in stop_token_ids and not is_forced:
            self.finish_reason = "stop"
        elif len(self.completion_token_ids) >= self.max_new_tokens:
            self.finish_reason = "length"
