"""Laws of the chat template: what the turns say is in the prompt, in the form that the template
takes, and nothing is closed that is to go on."""

from pathlib import Path
from typing import Any

import pytest

from dynts_batch.config import ModelConfig
from dynts_batch.engine.model.chat.template import ChatTemplate
from dynts_batch.engine.prompt import PromptRenderer
from dynts_batch.errors import BadRowError, ConfigError
from dynts_batch.lab.tokenizer import CHAT_TEMPLATE, build_tokenizer
from dynts_batch.records import Request

TOKENIZER = build_tokenizer()
USER = {"role": "user", "content": "2 + 2?"}

#: In the manner of models that also see: it knows only parts.
PARTS = (
    "{% for m in messages %}<|{{ m.role }}|>{% for part in m.content %}{% if part.type == 'text'"
    " %}{{ part.text }}{% endif %}{% endfor %}{% endfor %}<|assistant|>"
)
#: In the manner of Qwen3: thinking can be switched off, and earlier thinking is dropped.
SWITCH = (
    "{% for m in messages %}{% set text = m.content.split('</think>')[-1] %}<|{{ m.role }}|>"
    "{% if m.role == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}{{ text"
    " }}<|end|>\n{% endfor %}{% if add_generation_prompt %}<|assistant|>{% if enable_thinking is"
    " defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
DATED = (
    "{{ strftime_now('%d %b %Y') }}{% macro now() %}{{ strftime_now('%Y-%m-%d') }}{% endmacro %}"
    " {{ now() }}{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}<|assistant|>"
)


def chat(template: str = CHAT_TEMPLATE, **settings: Any) -> ChatTemplate:
    made = ChatTemplate.of(TOKENIZER, ModelConfig(chat_template=template, **settings))
    assert made is not None
    return made


def test_a_template_that_walks_over_parts_is_given_parts() -> None:
    """The characters of a text have no type: every prompt was rendered empty."""
    template = chat(PARTS)
    expected = "<|system|>Be brief.<|user|>2 + 2?<|assistant|>"
    for content in (
        "Be brief.",
        [{"type": "text", "text": "Be "}, {"type": "text", "text": "brief."}],
    ):
        assert template.render([{"role": "system", "content": content}, USER]) == expected


def test_a_template_that_takes_text_is_given_text() -> None:
    parts = [{"type": "text", "text": "2 +"}, {"type": "text", "text": " 2?"}]
    assert chat().render([{"role": "user", "content": parts}]) == chat().render([USER])


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% for m in messages %}<|{{ m.role }}|>{{ m.text }}{% endfor %}", "drops it"),
        ("{% for m in messages %}{{ m.content[:20] }}{% endfor %}", "drops it"),
        ("{% for m in messages %}{{ m.content[-390:] }}{% endfor %}", "drops it"),
        ("{{ messages[0].content | nonsense }}", "nonsense"),
        ("{{ raise_exception('never') }}", "never"),
        ("/nowhere/template.jinja", "must be the path of a Jinja file, or a template"),
        ("~nobody-here/template.jinja", "must be the path of a Jinja file, or a template"),
    ],
)
def test_a_template_that_cannot_say_what_the_user_says_is_refused(
    template: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        chat(template)


def test_a_turn_whose_role_the_template_drops_is_refused() -> None:
    """Qwen2.5's template writes nothing for a developer."""
    template = chat(
        "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}"
    )
    with pytest.raises(BadRowError, match="drops the text of a turn of 'developer'"):
        template.render([{"role": "developer", "content": "Be brief."}, USER])


def test_a_template_is_a_file_or_the_text_itself(tmp_path: Path) -> None:
    file = tmp_path / "template.jinja"
    file.write_text(SWITCH)
    assert chat(str(file)).source == chat(SWITCH).source == SWITCH
    file.write_text("Hello")
    with pytest.raises(ConfigError, match="must hold a Jinja template"):
        chat(str(file))


def test_settings_reach_the_template_and_a_requests_come_first() -> None:
    thinking, silent = "<|assistant|>", "<|assistant|><think>\n\n</think>\n\n"
    assert chat(SWITCH).render([USER]).endswith(thinking)
    template = chat(SWITCH, chat_template_kwargs={"enable_thinking": False})
    assert template.render([USER]).endswith(silent)
    assert template.render([USER], {"enable_thinking": True}).endswith(thinking)


@pytest.mark.parametrize("name", ["thinking", "messages", "add_generation_prompt"])
def test_a_setting_that_no_template_could_heed_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"model\.chat_template_kwargs must .*{name}"):
        chat(SWITCH, chat_template_kwargs={name: True})
    with pytest.raises(BadRowError, match=f"chat_template_kwargs must .*{name}"):
        chat(SWITCH).render([USER], {name: True})


def test_settings_without_a_template_are_refused() -> None:
    tokenizer = build_tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(ConfigError, match="needs a chat template"):
        ChatTemplate.of(tokenizer, ModelConfig(chat_template_kwargs={"enable_thinking": True}))
    assert ChatTemplate.of(tokenizer, ModelConfig()) is None


@pytest.mark.parametrize(
    ("template", "begun", "ending"),
    [
        (CHAT_TEMPLATE, "The answer is", "<|assistant|>The answer is"),
        (SWITCH, "The answer is", "<|assistant|><think>\n\n</think>\n\nThe answer is"),
        # Thinking is begun once, whether the template begins it too or would drop it.
        (CHAT_TEMPLATE, "<think>", "?<|assistant|><think>"),
        (CHAT_TEMPLATE, "<think>\nI add", "?<|assistant|><think>\nI add"),
        (SWITCH, "<think>\nI add", "<|assistant|><think>\nI add"),
        (
            SWITCH,
            "<think>\nI add.\n</think>\n\nIt is",
            "<|assistant|><think>\nI add.\n</think>\n\nIt is",
        ),
        (CHAT_TEMPLATE, "I add.</think> It is", "<|assistant|><think>I add.</think> It is"),
        (CHAT_TEMPLATE, "", "?<|assistant|><think>"),
        (PARTS.replace("<|assistant|>", ""), "The answer is", "<|assistant|>The answer is"),
    ],
)
def test_a_last_turn_of_the_assistant_is_continued(template: str, begun: str, ending: str) -> None:
    text = chat(template).render([USER, {"role": "assistant", "content": begun}])
    assert text.endswith(ending), text
    assert text.count("2 + 2?") == 1


def test_thinking_that_a_turn_has_begun_is_reasoning_though_it_never_ends() -> None:
    renderer = PromptRenderer(TOKENIZER, chat=chat(SWITCH))
    request = Request("a", messages=[USER, {"role": "assistant", "content": "<think>\nI"}])
    _, prompt = renderer.render(request)
    completion = renderer.encode(" add")
    is_thinking = renderer.continues_thinking(request)
    assert renderer.split(prompt, completion, None, is_thinking=is_thinking).reasoning == " add"
    closed = Request("a", messages=[USER, {"role": "assistant", "content": "<think>I</think> It"}])
    assert not renderer.continues_thinking(closed)


def test_a_template_that_asks_for_todays_date_is_given_the_runs() -> None:
    """A resume on another day rendered other prompts than the run had."""
    text = chat(DATED, chat_date="2024-02-03").render([USER])
    assert text == "03 Feb 2024 2024-02-03<|user|>2 + 2?<|assistant|>"


def test_several_templates_are_one_if_one_is_the_default() -> None:
    tokenizer = build_tokenizer()
    tokenizer.chat_template = {"default": SWITCH, "tool_use": CHAT_TEMPLATE}
    made = ChatTemplate.of(tokenizer, ModelConfig())
    assert made is not None
    assert made.source == SWITCH
    tokenizer.chat_template = {"rag": SWITCH, "tool_use": CHAT_TEMPLATE}
    with pytest.raises(ConfigError, match="none is the default, got rag, tool_use"):
        ChatTemplate.of(tokenizer, ModelConfig())


def test_what_a_template_writes_after_an_assistants_turn() -> None:
    assert chat().after_assistant() == "<|end|>"
    assert chat(SWITCH).after_assistant() == "<|end|>\n"
