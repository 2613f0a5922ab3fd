"""The tags around a model's thinking, as far as its tokenizer tells.

Knows nothing about requests and completions: prompt.py splits those by the tags.
"""

from collections.abc import Sequence
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from dynts_batch.errors import ConfigError


class ThinkTags(NamedTuple):
    """Text that begins thinking, and text that ends it and begins the answer."""

    start: str
    end: str


#: DeepSeek-R1 and its distillates, Qwen3, QwQ, GLM, Nemotron and most others.
THINK = ThinkTags("<think>", "</think>")
KNOWN_TAGS = (
    THINK,
    ThinkTags("[THINK]", "[/THINK]"),  # Mistral: Magistral and the reasoning Ministrals
    ThinkTags(  # OpenAI's harmony: gpt-oss. All channels before the final one are thinking
        "<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"
    ),
)


def find_think_tags(
    tokenizer: PreTrainedTokenizerBase, configured: Sequence[str] | None
) -> ThinkTags:
    """The `configured` tags (model.think_tags), else the one known pair in the chat template, else
    THINK.

    Raises: ConfigError if the tokenizer has no tokens for a tag, since the model could not write
    it.
    """
    if configured is None:
        template = str(tokenizer.chat_template or "")
        named = [tags for tags in KNOWN_TAGS if tags.start in template]
        return named[0] if len(named) == 1 else THINK
    for tag in configured:
        written = tokenizer.decode(tokenizer.encode(tag, add_special_tokens=False))
        if tag not in written:
            raise ConfigError(
                "model.think_tags must be text that the model's tokenizer can write, got"
                f" {tag!r}, of which it makes {written!r}"
            )
    start, end = configured
    return ThinkTags(start, end)
