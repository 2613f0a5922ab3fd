"""The traces a predictor learns from: correct, complete rows of a finished run, as token ids.

Knows nothing about attention or fitting.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from dynts_batch.data.run_dir import RunDir
from dynts_batch.engine.prompt import THINK_END, THINK_START, PromptRenderer


@dataclass(frozen=True)
class Trace:
    """One question's trace: prompt, thinking (without the tags that the prompt or the answer hold), and answer, which
    starts with the end of thinking."""

    request_id: str
    prompt_token_ids: list[int]
    thinking_token_ids: list[int]
    answer_token_ids: list[int]

    @property
    def token_ids(self) -> list[int]:
        return self.prompt_token_ids + self.thinking_token_ids + self.answer_token_ids


def read_traces(run_dir: RunDir, renderer: PromptRenderer) -> Iterator[Trace]:
    """One correct trace a question: the first sample that stopped by itself after exactly one end of thinking."""
    seen: set[str] = set()
    columns = ["request_id", "prompt", "reasoning", "answer", "finish_reason", "correct"]
    for batch in run_dir.read_rows(columns):
        for row in batch.to_pylist():
            usable = row["correct"] and row["finish_reason"] == "stop" and row["prompt"] is not None
            texts = (row["reasoning"], row["answer"])
            if (
                not usable
                or None in texts
                or THINK_END in "".join(texts)
                or row["request_id"] in seen
            ):
                continue
            seen.add(row["request_id"])
            yield _to_trace(row, renderer)


def _to_trace(row: dict, renderer: PromptRenderer) -> Trace:
    """Tokenise the parts apart, as they were generated apart."""
    prompt = renderer.encode(row["prompt"])
    opening = "" if renderer.opens_thinking(prompt) else THINK_START
    return Trace(
        request_id=row["request_id"],
        prompt_token_ids=prompt,
        thinking_token_ids=renderer.encode(opening + row["reasoning"]),
        answer_token_ids=renderer.encode(THINK_END + row["answer"]),
    )
