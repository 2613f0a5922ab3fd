"""Rendering requests and splitting completions into reasoning and answer."""

import pytest

from dynts_batch.engine.prompt import PromptRenderer
from dynts_batch.errors import BadRowError
from dynts_batch.lab.tokenizer import build_tokenizer
from dynts_batch.records import Request

TOKENIZER = build_tokenizer()
RENDERER = PromptRenderer(TOKENIZER)


def ids(text: str) -> list[int]:
    return TOKENIZER.encode(text)


def test_a_prompt_is_the_user_turn_of_the_chat_template() -> None:
    text, token_ids = RENDERER.render(Request("a", prompt="What is 2 + 2?"))
    assert text == "<|user|>What is 2 + 2?<|assistant|><think>"
    assert token_ids == ids(text)


def test_messages_are_rendered_as_they_are() -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 2?"}]
    text, _ = RENDERER.render(Request("a", messages=messages))
    assert text == "<|system|>Be brief.<|user|>2 + 2?<|assistant|><think>"


@pytest.mark.parametrize(
    ("prompt", "completion", "reasoning", "answer", "reasoning_tokens"),
    [
        ("<think>", " so 5</think> It is 5.<|end|>", " so 5", " It is 5.", 2),
        ("<think>", " so 5", " so 5", None, 2),  # an unclosed tag keeps the raw text
        ("", "<think> so 5</think> It is 5.<|end|>", " so 5", " It is 5.", 3),
        ("", "<think> so 5", " so 5", None, 3),
        ("", " It is 5.<|end|>", None, " It is 5.", 0),
        ("<think> old</think>", " It is 5.", None, " It is 5.", 0),
        ("<think>", " a</think> b</think> c", " a", " b c", 1),
    ],
)
def test_split(
    prompt: str, completion: str, reasoning: str | None, answer: str | None, reasoning_tokens: int
) -> None:
    split = RENDERER.split(ids(f"<|user|>x{prompt}"), ids(completion))
    assert (split.reasoning, split.answer) == (reasoning, answer)
    assert split.reasoning_tokens == reasoning_tokens


def test_an_end_of_thinking_of_several_tokens_is_found() -> None:
    """The reference code needs `</think>` to be one token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = {char: i for i, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=alphabet, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    renderer = PromptRenderer(PreTrainedTokenizerFast(tokenizer_object=tokenizer))
    assert len(renderer.think_end) == len("</think>")
    split = renderer.split(renderer.encode("hi<think>"), renderer.encode("abc</think>d"))
    assert (split.reasoning, split.answer, split.reasoning_tokens) == ("abc", "d", 3)


def test_a_request_needs_exactly_one_kind_of_prompt() -> None:
    for request in (Request("a"), Request("a", prompt="x", prompt_token_ids=[9])):
        with pytest.raises(BadRowError, match="exactly one"):
            RENDERER.render(request)
