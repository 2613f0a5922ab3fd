"""From a request to prompt tokens, and from completion tokens back to reasoning and answer.

Owns the tokenizer and the rules about thinking tags. Knows nothing about models or caches.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from dynts_batch.errors import BadRowError
from dynts_batch.records import Request

THINK_START, THINK_END = "<think>", "</think>"


@dataclass(frozen=True, slots=True)
class SplitText:
    """A completion's text. `reasoning` is None if it never thought, `answer` None if thinking never ended."""

    reasoning: str | None
    answer: str | None
    reasoning_tokens: int


class PromptRenderer:
    """Renders requests with the tokenizer's chat template, where it has one, and splits completions."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._think_start = tuple(tokenizer.encode(THINK_START, add_special_tokens=False))
        #: One token for most models; matched as a sequence so that any tokenizer works.
        self.think_end = tuple(tokenizer.encode(THINK_END, add_special_tokens=False))

    def render(self, request: Request) -> tuple[str | None, list[int]]:
        """The text the model reads (None if the request came as ids) and its token ids.

        Raises: BadRowError where the request holds no usable prompt.
        """
        given = [
            x is not None for x in (request.prompt, request.messages, request.prompt_token_ids)
        ]
        if sum(given) != 1:
            raise BadRowError(
                "a request needs exactly one of prompt, messages and prompt_token_ids"
            )
        if request.prompt_token_ids is not None:
            return None, self._checked(list(request.prompt_token_ids))
        text, has_template = request.prompt, self._tokenizer.chat_template is not None
        if request.messages is not None:
            text = self._from_messages(request.messages)
        elif has_template:
            text = self._from_messages([{"role": "user", "content": request.prompt}])
        assert text is not None
        # A chat template writes its own special tokens; bare text gets the tokenizer's.
        return text, self._checked(self.encode(text, add_special_tokens=not has_template))

    def encode(self, text: str, *, add_special_tokens: bool = False) -> list[int]:
        """Token ids of rendered text.

        Raises: BadRowError where it is no valid text, e.g. half of a surrogate pair.
        """
        try:
            return self._tokenizer.encode(text, add_special_tokens=add_special_tokens)
        except (TypeError, ValueError) as error:
            raise BadRowError(f"the prompt cannot be tokenised: {error}") from error

    def _from_messages(self, messages: Sequence[Mapping[str, Any]]) -> str:
        # Templates print what is missing as nothing, so a wrong key would pass unnoticed.
        if not messages or not all({"role", "content"} <= message.keys() for message in messages):
            raise BadRowError("messages must be a list of turns, each with role and content")
        try:
            return self._tokenizer.apply_chat_template(
                [dict(message) for message in messages], tokenize=False, add_generation_prompt=True
            )
        except (
            Exception
        ) as error:  # a template is Jinja code of the model's author: it may raise anything
            raise BadRowError(f"the chat template rejected the messages: {error}") from error

    def _checked(self, token_ids: list[int]) -> list[int]:
        if not token_ids:
            raise BadRowError("the prompt has no tokens")
        if not all(isinstance(t, int) and 0 <= t < len(self._tokenizer) for t in token_ids):
            raise BadRowError(f"prompt_token_ids must be integers in [0, {len(self._tokenizer)})")
        return token_ids

    def opens_thinking(self, prompt_token_ids: Sequence[int]) -> bool:
        """Whether the prompt's last think tag is an open one, as R1's generation prompt leaves it."""
        start = _rfind(prompt_token_ids, self._think_start)
        return start >= 0 and start > _rfind(prompt_token_ids, self.think_end)

    def split(
        self, prompt_token_ids: Sequence[int], completion_token_ids: Sequence[int]
    ) -> SplitText:
        """Reasoning is what stands before the first end of thinking; an unclosed tag leaves all of it reasoning."""
        end = _find(completion_token_ids, self.think_end)
        if end >= 0:
            reasoning_tokens, answer_start = end, end + len(self.think_end)
        elif self.opens_thinking((*prompt_token_ids, *completion_token_ids)):
            reasoning_tokens, answer_start = len(completion_token_ids), None
        else:
            return SplitText(None, self._decode(completion_token_ids), 0)
        reasoning = self._decode(completion_token_ids[:reasoning_tokens]).removeprefix(THINK_START)
        answer = None if answer_start is None else self._decode(completion_token_ids[answer_start:])
        return SplitText(reasoning, answer, reasoning_tokens)

    def _decode(self, token_ids: Sequence[int]) -> str:
        return self._tokenizer.decode(list(token_ids), skip_special_tokens=True)


def _find(token_ids: Sequence[int], pattern: tuple[int, ...]) -> int:
    """Index of the first occurrence of `pattern`, or -1, as str.find."""
    return next(
        (i for i in range(len(token_ids)) if tuple(token_ids[i : i + len(pattern)]) == pattern), -1
    )


def _rfind(token_ids: Sequence[int], pattern: tuple[int, ...]) -> int:
    starts = range(len(token_ids) - len(pattern), -1, -1)
    return next((i for i in starts if tuple(token_ids[i : i + len(pattern)]) == pattern), -1)
