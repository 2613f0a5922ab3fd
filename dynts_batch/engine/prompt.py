"""From a request to prompt tokens, and from completion tokens back to reasoning and answer.

Owns the tokenizer and where in the tokens thinking begins and ends; think_tags.py says which tags
do that. Knows nothing about models or caches.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from dynts_batch.config import ModelConfig
from dynts_batch.engine.model.chat.template import ChatTemplate, begun_text
from dynts_batch.engine.model.think_tags import THINK, ThinkTags
from dynts_batch.errors import BadRowError
from dynts_batch.records import Request

#: Enough for white space before a prompt's end or at a completion's beginning.
_SPACE_TOKENS = 9
#: A character has at most four bytes, and a token at least one. More tokens are broken text, to be
#: shown as is.
_MAX_CHARACTER_TOKENS = 4


@dataclass(frozen=True, slots=True)
class SplitText:
    """A completion's text. `reasoning` is None if it never thought, `answer` None if thinking never
    ended."""

    reasoning: str | None
    answer: str | None
    reasoning_tokens: int


class PromptRenderer:
    """Renders requests, and splits completions.

    It uses `chat`, or else the tokenizer's own chat template if there is one.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        tags: ThinkTags = THINK,
        chat: ChatTemplate | None = None,
        vocab_size: int | None = None,
    ) -> None:
        """`vocab_size`: the model's. A tokenizer may have padding beyond it."""
        self._num_ids = min(len(tokenizer), vocab_size or len(tokenizer))
        self._tokenizer, self.tags = tokenizer, tags
        self._chat = chat or ChatTemplate.of(tokenizer, ModelConfig(), tags)
        # A token is at least one byte, so a tag spans no more tokens than it has bytes.
        self._start_tokens, self._end_tokens = (len(tag.encode()) for tag in tags)
        #: Only after one of these can the text end in the end of thinking. This spares decoding at
        #: all other tokens.
        self._closing_token_ids = _closing_token_ids(tokenizer, tags.end)

    def render(self, request: Request) -> tuple[str | None, list[int]]:
        """The text that the model reads, and its token ids. The text is None if the request came as
        ids.

        Raises: BadRowError if the request holds no usable prompt.
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
        text = request.prompt
        if request.messages is not None:
            text = self._from_messages(request.messages, request.chat_template_kwargs)
        elif self._chat is not None:
            turn = {"role": "user", "content": request.prompt}
            text = self._from_messages([turn], request.chat_template_kwargs)
        assert text is not None
        # A chat template writes its own special tokens; bare text gets the tokenizer's.
        return text, self._checked(self.encode(text, add_special_tokens=self._chat is None))

    def encode(self, text: str, *, add_special_tokens: bool = False) -> list[int]:
        """Token ids of rendered text.

        Raises: BadRowError if it is no valid text, such as half of a surrogate pair.
        """
        try:
            return self._tokenizer.encode(text, add_special_tokens=add_special_tokens)
        except (TypeError, ValueError) as error:
            raise BadRowError(f"the prompt cannot be tokenised: {error}") from error

    def _from_messages(
        self, messages: Sequence[Mapping[str, Any]], settings: Mapping[str, Any] | None
    ) -> str:
        # Templates print missing keys as nothing, so a wrong key would pass unnoticed.
        if not messages or not all(_is_turn(message) for message in messages):
            raise BadRowError("messages must be a list of turns, each with role and content")
        if self._chat is None:
            raise BadRowError("messages need a chat template, and the tokenizer has none")
        return self._chat.render(messages, settings)

    def _checked(self, token_ids: list[int]) -> list[int]:
        if not token_ids:
            raise BadRowError("the prompt has no tokens")
        if not all(isinstance(t, int) and 0 <= t < self._num_ids for t in token_ids):
            raise BadRowError(f"tokens of a prompt must be integers in [0, {self._num_ids})")
        return token_ids

    def opens_thinking(self, prompt_token_ids: Sequence[int]) -> bool:
        """Whether the prompt ends in an open think tag, as R1's generation prompt does.

        A tag anywhere else is the user's text and opens nothing.
        """
        tail = prompt_token_ids[-self._start_tokens - _SPACE_TOKENS :]
        return self.text(tail).rstrip().endswith(self.tags.start)

    def continues_thinking(self, request: Request) -> bool:
        """Whether the request's last turn is the assistant's, has begun to think, and is to be
        continued."""
        begun = begun_text(request.messages or ()) or ""
        _, opened, thought = begun.rpartition(self.tags.start)
        return bool(opened) and self.tags.end not in thought

    def find_answer(self, completion_token_ids: Sequence[int]) -> int | None:
        """The index of the first token of the end of thinking, if the newest token completes it.

        It is matched as text: tokenizers without a token for the tag merge its ends with their
        neighbours.
        """
        if completion_token_ids[-1] not in self._closing_token_ids:
            return None
        num_tokens, end = len(completion_token_ids), self.tags.end
        first = max(0, num_tokens - self._end_tokens)
        if end not in self.text(completion_token_ids[first:]):
            return None
        starts = range(num_tokens - 1, first - 1, -1)
        return next((i for i in starts if end in self.text(completion_token_ids[i:])), None)

    def first_answer(self, completion_token_ids: Sequence[int]) -> int | None:
        """Where the end of thinking begins in a whole completion: the first that `find_answer`
        would find."""
        for end, token_id in enumerate(completion_token_ids, start=1):
            if token_id in self._closing_token_ids:
                # No tag reaches further back.
                first = max(0, end - self._end_tokens)
                found = self.find_answer(completion_token_ids[first:end])
                if found is not None:
                    return first + found
        return None

    def has_two_ends(self, answer_token_ids: Sequence[int]) -> bool:
        """Whether thinking ends again, after the end with which these tokens begin."""
        return self.text(answer_token_ids).count(self.tags.end) > 1

    def split(
        self,
        prompt_token_ids: Sequence[int],
        completion_token_ids: Sequence[int],
        answer_start: int | None,
        *,
        is_thinking: bool = False,
    ) -> SplitText:
        """Reasoning is what comes before the first end of thinking, at token `answer_start`.

        If the tag is never closed, all of it is reasoning. `is_thinking`: the prompt ends amid
        thinking.
        """
        if answer_start is None:
            is_thinking = is_thinking or self.opens_thinking(prompt_token_ids)
            if is_thinking or self.opens(completion_token_ids):
                reasoning = self._reasoning(completion_token_ids)
                return SplitText(reasoning, None, len(completion_token_ids))
            return SplitText(
                None, self._without_thinking(prompt_token_ids, completion_token_ids), 0
            )
        reasoning = self._reasoning(completion_token_ids[:answer_start])
        before, answer = self._cut(completion_token_ids[answer_start:], self.tags.end)
        return SplitText(reasoning + before, answer, answer_start)

    def _without_thinking(
        self, prompt_token_ids: Sequence[int], completion_token_ids: Sequence[int]
    ) -> str:
        """The text of a completion that is all answer.

        The prompt may hold half of the tag: gpt-oss opens its final channel at once.
        """
        tail = prompt_token_ids[-self._end_tokens :]
        head = completion_token_ids[: self._end_tokens]
        if self.tags.end in self.text(tail) or self.tags.end not in self.text([*tail, *head]):
            return self._decode(completion_token_ids)
        return self._cut([*tail, *completion_token_ids], self.tags.end)[1]

    @property
    def num_opening_tokens(self) -> int:
        """Most tokens of an opening tag that the model writes itself."""
        return self._start_tokens + _SPACE_TOKENS

    def opens(self, completion_token_ids: Sequence[int]) -> bool:
        """Whether the model writes the opening tag itself, perhaps after a line break."""
        head = completion_token_ids[: self.num_opening_tokens]
        return self.text(head).lstrip().startswith(self.tags.start)

    def _reasoning(self, token_ids: Sequence[int]) -> str:
        """The text of a completion's thinking, without its opening tag."""
        if not self.opens(token_ids):
            return self._decode(token_ids)
        return "".join(self._cut(token_ids, self.tags.start))

    def _cut(self, token_ids: Sequence[int], tag: str) -> tuple[str, str]:
        """The text before and after the first `tag`. Its first and last token may hold other text
        too."""
        end = next(i for i in range(1, len(token_ids) + 1) if tag in self.text(token_ids[:i]))
        before, _, after = self.text(token_ids[:end]).partition(tag)
        return before, after + self._decode(token_ids[end:])

    def token_texts(self, token_ids: Sequence[int]) -> list[str]:
        """The text that each token adds; "" for one whose bytes are no whole character yet.

        Some tokenizers drop the space before the first token, so each is decoded behind its
        predecessors.
        """
        texts: list[str] = []
        start = read = 0  # the tokens start..read-1 are context, already decoded
        for end in range(1, len(token_ids) + 1):
            known, text = self.text(token_ids[start:read]), self.text(token_ids[start:end])
            is_whole = not text.endswith("\ufffd") or end - read >= _MAX_CHARACTER_TOKENS
            is_whole |= end == len(token_ids)
            texts.append(text[len(known) :] if is_whole else "")
            if is_whole:
                start, read = read, end
        return texts

    def token_text(self, token_id: int) -> str:
        """The text of one token, special ones included."""
        return self._tokenizer.decode([token_id])

    def text(self, token_ids: Sequence[int]) -> str:
        """The text of tokens, special ones included: some tokenizers treat the tags as such."""
        return self._tokenizer.decode(list(token_ids), skip_special_tokens=False)

    def _decode(self, token_ids: Sequence[int]) -> str:
        return self._tokenizer.decode(list(token_ids), skip_special_tokens=True)


def _closing_token_ids(tokenizer: PreTrainedTokenizerBase, end: str) -> frozenset[int]:
    """Tokens that hold the last character of `end`, or its last byte as the tokenizer writes it."""
    last = tokenizer.tokenize(end)[-1][-1]
    vocabulary = tokenizer.get_vocab().items()
    return frozenset(token_id for token, token_id in vocabulary if last in token)


def _is_turn(message: Mapping[str, Any]) -> bool:
    return "role" in message and ("content" in message or "tool_calls" in message)
