"""The traces that a predictor learns from: correct, complete rows of a finished run, as token ids.

Knows nothing about attention or fitting.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dynts_batch.data.run_dir import RunDir
from dynts_batch.data.shard_table import Unit
from dynts_batch.engine.prompt import PromptRenderer
from dynts_batch.errors import InputError, RunDirError

_TEXTS = ["request_id", "sample_index", "prompt", "reasoning", "answer", "extracted_answer"]
#: Where a trace's answer begins: see `read_traces`.
Answer = Literal["tags", "stated"]
_SENTENCE_ENDS = ("\n", ". ", "? ", "! ")
_TOKENS = ["prompt_tokens", "reasoning_tokens", "completion_tokens", "completion_token_ids"]


@dataclass(frozen=True)
class Trace:
    """One trace: prompt, thinking and answer.

    The answer starts with the end of thinking, or with the sentence that states it: see
    `read_traces`. The thinking has no tag that the prompt or the answer holds.
    """

    request_id: str
    sample_index: int
    prompt_token_ids: list[int]
    thinking_token_ids: list[int]
    answer_token_ids: list[int]

    @property
    def token_ids(self) -> list[int]:
        return self.prompt_token_ids + self.thinking_token_ids + self.answer_token_ids


@dataclass(frozen=True)
class Dropped:
    """A row that gives no trace."""

    reason: str


_OTHER_TOKENS = Dropped("its text has other tokens than were generated")


def choose_units(run_dir: RunDir, traces_per_question: int) -> dict[int, list[Unit]]:
    """The units to label, by shard: each question's first correct samples that ended themselves.

    Raises: RunDirError if the run is not finished, or graded by halves; InputError if no row is
        correct.
    """
    if run_dir.read_manifest() is None:
        raise RunDirError(f"{run_dir.path} must be a finished run: resume it first")
    run_dir.refuse_half_graded()
    chosen: dict[int, list[Unit]] = {}
    num_of: Counter[str] = Counter()
    num_rows = num_graded = 0
    for shard in sorted(run_dir.finished_shards()):
        table = run_dir.read_shard(shard)
        for row in table.select(
            ["request_id", "sample_index", "finish_reason", "correct"]
        ).to_pylist():
            request_id = row["request_id"]
            num_rows, num_graded = num_rows + 1, num_graded + (row["correct"] is not None)
            usable = row["correct"] and row["finish_reason"] == "stop"
            if usable and num_of[request_id] < traces_per_question:
                num_of[request_id] += 1
                chosen.setdefault(shard, []).append((request_id, row["sample_index"]))
    if not chosen:
        raise InputError(
            f"{run_dir.path} must hold at least one correct trace that ended by itself, got "
            f"{num_rows} rows of which {num_graded} are graded (input.reference_column, "
            "`dynts-batch grade`)"
        )
    return chosen


def read_traces(
    run_dir: RunDir,
    shard: int,
    units: Sequence[Unit],
    renderer: PromptRenderer,
    answer: Answer = "tags",
) -> Iterator[Trace | Dropped]:
    """The trace, or the reason for none, of each row of `units` in `shard`, in the rows' order.

    `answer` says where a row's answer begins. "tags": with the end of thinking. "stated": with the
    sentence in which the graded answer stands last, for models that think without tags.
    """
    wanted = set(units)
    for row in run_dir.read_shard(shard).select(_TEXTS + _TOKENS).to_pylist():
        if (row["request_id"], row["sample_index"]) in wanted:
            yield _to_trace(row, renderer, answer)


def _to_trace(row: dict[str, Any], renderer: PromptRenderer, answer: Answer) -> Trace | Dropped:
    if row["prompt"] is None:
        return Dropped("the request came as token ids")
    prompt = renderer.encode(row["prompt"])
    # A template's special tokens stand in its text; those that a tokenizer adds do not.
    if len(prompt) != row["prompt_tokens"]:
        prompt = renderer.encode(row["prompt"], add_special_tokens=True)
    if len(prompt) != row["prompt_tokens"]:
        return _OTHER_TOKENS
    split = _tagged(row, prompt, renderer) if answer == "tags" else _stated(row, renderer)
    if isinstance(split, Dropped):
        return split
    return Trace(row["request_id"], row["sample_index"], prompt, *split)


def _tagged(
    row: dict[str, Any], prompt: list[int], renderer: PromptRenderer
) -> tuple[list[int], list[int]] | Dropped:
    """Thinking and answer as generated. An older row without token ids is tokenised.

    Text does not always give back the tokens that it came from. If the counts differ, the trace is
    dropped, because its labels would belong to other tokens than the model wrote.
    """
    if row["reasoning"] is None or row["answer"] is None:
        return Dropped("no thinking in tags; answer=stated takes the graded answer's sentence")
    thinking, answer = _generated(row) or _tokenised(row, prompt, renderer)
    if renderer.has_two_ends(answer):
        return Dropped("more than one end of thinking")
    # No text holds the stop token, which is the last of the completion.
    generated = row["completion_tokens"] - row["reasoning_tokens"]
    if (len(thinking), 1 + len(answer)) != (row["reasoning_tokens"], generated):
        return _OTHER_TOKENS
    return thinking, answer


def _stated(row: dict[str, Any], renderer: PromptRenderer) -> tuple[list[int], list[int]] | Dropped:
    """What comes before the sentence that states the answer, and the rest."""
    if row["completion_token_ids"] is None:
        return Dropped("its row has no token ids")
    token_ids = row["completion_token_ids"][:-1]  # the last one is the stop token
    text, stated = renderer.text(token_ids), row["extracted_answer"]
    at = text.rfind(stated) if stated else -1
    if at < 0:
        return Dropped("its text does not hold the answer as graded")
    ends = ((text.rfind(end, 0, at), len(end)) for end in _SENTENCE_ENDS)
    start = max((found + length for found, length in ends if found >= 0), default=0)
    # The first token that reaches into the sentence; it may hold the end of the one before.
    lengths = range(1, len(token_ids) + 1)
    first = bisect_right(lengths, start, key=lambda n: len(renderer.text(token_ids[:n])))
    if first == 0:
        return Dropped("nothing stands before its answer")
    return token_ids[:first], token_ids[first:]


def _generated(row: dict[str, Any]) -> tuple[list[int], list[int]] | None:
    """Thinking and answer, without the stop token; None if the row has no token ids."""
    token_ids, num_thinking = row["completion_token_ids"], row["reasoning_tokens"]
    if token_ids is None:
        return None
    return token_ids[:num_thinking], token_ids[num_thinking:-1]


def _tokenised(
    row: dict[str, Any], prompt: list[int], renderer: PromptRenderer
) -> tuple[list[int], list[int]]:
    """Thinking and answer from their texts, tokenised apart because they were generated apart."""
    start, end = renderer.tags
    opening = "" if renderer.opens_thinking(prompt) else start
    return renderer.encode(opening + row["reasoning"]), renderer.encode(end + row["answer"])
