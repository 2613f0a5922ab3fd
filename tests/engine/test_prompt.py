"""Rendering requests and splitting completions into reasoning and answer."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from dynts_batch.engine.model.think_tags import KNOWN_TAGS, THINK, ThinkTags, find_think_tags
from dynts_batch.engine.prompt import PromptRenderer, SplitText
from dynts_batch.errors import BadRowError, ConfigError
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


def split_as_generated(
    renderer: PromptRenderer, prompt_token_ids: list[int], token_ids: list[int]
) -> SplitText:
    """Split a completion whose end of thinking is looked for token by token, as the engine does."""
    found = (renderer.find_answer(token_ids[: n + 1]) for n in range(len(token_ids)))
    answer_start = next((start for start in found if start is not None), None)
    return renderer.split(prompt_token_ids, token_ids, answer_start)


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
        ("<think>\n", " so 5", " so 5", None, 2),  # R1's template adds a line break
        ("", "\n<think> so 5</think> It is 5.", "\n so 5", " It is 5.", 4),
        # A user who writes the tag opens no thinking of the model's.
        ("What does <think> mean?<|assistant|>", " It is 5.", None, " It is 5.", 0),
    ],
)
def test_split(
    prompt: str, completion: str, reasoning: str | None, answer: str | None, reasoning_tokens: int
) -> None:
    split = split_as_generated(RENDERER, ids(f"<|user|>x{prompt}"), ids(completion))
    assert (split.reasoning, split.answer) == (reasoning, answer)
    assert split.reasoning_tokens == reasoning_tokens


def byte_level_tokenizer(*merges: tuple[str, str]) -> PreTrainedTokenizerFast:
    """Bytes, and what `merges` make of them."""
    tokens = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *(a + b for a, b in merges)]
    vocabulary = {token: token_id for token_id, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=list(merges)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def test_an_end_of_thinking_of_several_tokens_is_found() -> None:
    """The reference code needs `</think>` to be one token."""
    renderer = PromptRenderer(byte_level_tokenizer())
    completion = renderer.encode("abc</think>d")
    assert len(completion) == len("abc</think>d")
    split = split_as_generated(renderer, renderer.encode("hi<think>"), completion)
    assert (split.reasoning, split.answer, split.reasoning_tokens) == ("abc", "d", 3)


def test_an_end_of_thinking_that_merges_with_its_neighbours_is_found() -> None:
    """A BPE without a token of its own for the tag:
    `.</` before it and `>\\n` after it are tokens."""
    renderer = PromptRenderer(byte_level_tokenizer((".", "<"), (".<", "/"), (">", "\u010a")))
    completion = renderer.encode("abc.</think>\nd")
    assert renderer.encode("</think>")[-1] not in completion
    split = split_as_generated(renderer, renderer.encode("hi<think>"), completion)
    assert (split.reasoning, split.answer, split.reasoning_tokens) == ("abc.", "\nd", 3)


_, MISTRAL, HARMONY = KNOWN_TAGS
CHANNELS = ("<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|return|>")
ANALYSIS, FINAL = "<|channel|>analysis<|message|>", "<|channel|>final<|message|>"


@pytest.mark.parametrize("special", [(), "the tags"])
@pytest.mark.parametrize(
    ("tags", "completion", "reasoning", "answer"),
    [
        (MISTRAL, "[THINK]1 + 1[/THINK]2", "1 + 1", "2"),
        (MISTRAL, "[THINK]1 + 1", "1 + 1", None),
        (MISTRAL, "<think>1[/THINK]2", "<think>1", "2"),
        (MISTRAL, "2", None, "2"),
        (HARMONY, f"{ANALYSIS}1 + 1<|end|><|start|>assistant{FINAL}2<|return|>", "1 + 1", "2"),
        (HARMONY, f"{ANALYSIS}1 + 1", "1 + 1", None),
        (HARMONY, f"{FINAL}2<|return|>", None, "2"),
        (ThinkTags("\u25c1think\u25b7", "\u25c1/think\u25b7"),
         "\u25c1think\u25b7a\u25c1/think\u25b7b", "a", "b"),
    ],
)  # fmt: skip
def test_other_tags_part_a_completion_alike_as_text_and_as_special_tokens(
    special: object, tags: ThinkTags, completion: str, reasoning: str | None, answer: str | None
) -> None:
    tokenizer = byte_level_tokenizer()
    own = list(CHANNELS) if tags == HARMONY else list(tags) if special else []
    tokenizer.add_special_tokens({"additional_special_tokens": own})
    prompt = tokenizer.encode("<|start|>user<|message|>1 + 1?<|end|><|start|>assistant")
    split = split_as_generated(
        PromptRenderer(tokenizer, tags), prompt, tokenizer.encode(completion)
    )
    assert (split.reasoning, split.answer) == (reasoning, answer)


@pytest.mark.parametrize(
    ("template", "found"),
    [
        (None, THINK),
        ("{{ messages[0]['content'] }}", THINK),
        ("{{ messages[0]['content'] }}<think>\n", THINK),
        ("{{ '[THINK]' + block['thinking'] + '[/THINK]' }}", MISTRAL),
        ("{{ '<|start|>assistant<|channel|>analysis<|message|>' + message.thinking }}", HARMONY),
        ("{{ '[THINK]' }} {{ '<think>' }}", THINK),  # it could be either
    ],
)
def test_the_chat_template_tells_the_tags(template: str | None, found: ThinkTags) -> None:
    tokenizer = byte_level_tokenizer()
    tokenizer.chat_template = template
    assert find_think_tags(tokenizer, None) == found
    assert find_think_tags(tokenizer, ["<a>", "</a>"]) == ("<a>", "</a>")


def test_tags_that_the_tokenizer_cannot_write_are_refused() -> None:
    words = Tokenizer(models.WordLevel({"[UNK]": 0, "<think>": 1}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]")
    message = (
        r"model.think_tags must be text that .* can write, got '</think>', of which .* '\[UNK\]'"
    )
    with pytest.raises(ConfigError, match=message):
        find_think_tags(tokenizer, ["<think>", "</think>"])


def test_a_request_needs_exactly_one_kind_of_prompt() -> None:
    for request in (Request("a"), Request("a", prompt="x", prompt_token_ids=[9])):
        with pytest.raises(BadRowError, match="exactly one"):
            RENDERER.render(request)


@pytest.mark.parametrize(
    "text",
    ["a b", "caf\u00e9 \u2264 \U0001d54f!", "\U0001f469\u200d\U0001f680", " lead", "x\ufffdy"],
)
def test_the_texts_of_tokens_join_to_the_text(text: str) -> None:
    tokenizer = byte_level_tokenizer()
    token_ids = tokenizer.encode(text)
    texts = PromptRenderer(tokenizer).token_texts(token_ids)
    assert len(texts) == len(token_ids) == len(text.encode())
    assert "".join(texts) == text


def test_bytes_that_are_no_text_are_shown_as_broken_and_spoil_nothing_after_them() -> None:
    tokenizer = byte_level_tokenizer()
    (lone,) = tokenizer.encode("\u00e9")[:1]
    texts = PromptRenderer(tokenizer).token_texts([lone] * 6 + tokenizer.encode("ok"))
    assert "".join(texts).endswith("ok")
    assert set("".join(texts)) == {"\ufffd", "o", "k"}
