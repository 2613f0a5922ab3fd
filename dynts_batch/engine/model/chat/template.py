"""The chat template: from turns to the text that the model reads, and to an assistant turn's end.

Owns which template it is, its variables beside the turns, and the form in which it takes each
role's text. Knows nothing about requests and tokens.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cached_property
from os.path import expanduser
from pathlib import Path
from typing import Any, Literal, Self

from transformers import PreTrainedTokenizerBase

from dynts_batch.config import ModelConfig
from dynts_batch.engine.model.think_tags import THINK, ThinkTags
from dynts_batch.errors import BadRowError, ConfigError

#: A text that no template has a reason to change or drop, as long as a question may be.
PROBE = "Probe 4711 " + 40 * "and so on " + "to 4712"
#: Variables that the engine itself gives to a template.
RESERVED = [
    "messages",
    "conversation",
    "add_generation_prompt",
    "continue_final_message",
    "chat_template",
    "tokenize",
    "return_dict",
    "return_tensors",
    "return_assistant_tokens_mask",
    "sanitize_control_tokens",
    "padding",
    "truncation",
    "max_length",
    "tokenizer_kwargs",
    "strftime_now",
]
#: Parts of a date that a template can ask for. Those with a flag come first.
DIRECTIVES = [f"%{flag}{letter}" for flag in ("-", "") for letter in "aAbBdHIjmMpSUwWyY"]

Turn = Mapping[str, Any]
#: How a template takes the text of a role: as it is, as [{"type": "text", "text": ...}], or not.
Form = Literal["text", "parts", "dropped"]


@dataclass(frozen=True)
class ChatTemplate:
    """A Jinja `source`, its `settings` for every request, and its today, None if it asks
    for none."""

    tokenizer: PreTrainedTokenizerBase
    source: str
    settings: Mapping[str, Any]
    tags: ThinkTags = THINK
    day: str | None = None
    _forms: dict[str, Form] = field(default_factory=dict)

    @classmethod
    def of(
        cls, tokenizer: PreTrainedTokenizerBase, config: ModelConfig, tags: ThinkTags = THINK
    ) -> Self | None:
        """The template of `config`, else the tokenizer's own, else None.

        Raises: ConfigError if it cannot be rendered, drops the user's text, or rejects settings.
        """
        settings = config.chat_template_kwargs or {}
        source = template_source(tokenizer, config)
        if source is None:
            if settings:
                raise ConfigError(
                    f"model.chat_template_kwargs needs a chat template, and {config.name!r} has"
                    f" none: name one as model.chat_template, got {dict(settings)}"
                )
            return None
        day = (config.chat_date or date.today().isoformat()) if says_date(source) else None
        template = cls(tokenizer, source, settings, tags, day)
        template._check()
        return template

    @cached_property
    def _dated_source(self) -> str:
        return self.source if self.day is None else _with_date(self.source, self.day)

    def render(self, turns: Sequence[Turn], settings: Mapping[str, Any] | None = None) -> str:
        """The text up to where the model goes on, which continues a last turn of the assistant.

        `settings` override the template's own.

        Raises: BadRowError if the template rejects or drops something.
        """
        if settings:
            self._check_settings(settings)
        merged = {**self.settings, **(settings or {})}
        formed = [self._formed(turn) for turn in turns]
        begun = begun_text(turns)
        if not begun:
            return self._apply(formed[:-1] if begun == "" else formed, merged)
        if not any(tag in begun for tag in self.tags):
            return self._apply(formed, merged, continue_final_message=True)
        # Templates drop or move an assistant's thinking. So it is appended to what comes before.
        opening = self._apply(formed[:-1], merged)
        bare = opening.rstrip()
        if begun.lstrip().startswith(self.tags.start) and bare.endswith(self.tags.start):
            opening = bare.removesuffix(self.tags.start)
        return opening + begun

    def after_assistant(self) -> str:
        """What it writes after the text of an assistant's last turn; "" if that is unclear."""
        *before, turn, _ = self._conversation("assistant", PROBE)
        try:
            turns = [*before, self._formed(turn)]
            text = self._apply(turns, self.settings, add_generation_prompt=False)
        except BadRowError:
            return ""
        return text.rpartition(PROBE)[2] if PROBE in text else ""

    def form(self, role: str) -> Form:
        """The form in which it takes the text of `role`, found by rendering one, once."""
        if role not in self._forms:
            self._forms[role] = self._find_form(role)
        return self._forms[role]

    def _check(self) -> None:
        """Raises: ConfigError if the template does not work."""
        try:
            self._check_settings(self.settings)
        except BadRowError as error:
            raise ConfigError(f"model.{error}") from None
        try:
            self._apply(self._conversation("user", PROBE), self.settings)
        except BadRowError as text_error:
            try:
                self._apply(self._conversation("user", _parts(PROBE)), self.settings)
            except BadRowError:
                raise ConfigError(f"model.chat_template: {text_error}") from None
        if self.form("user") == "dropped":
            raise ConfigError(
                "model.chat_template must write the user's text, got a template that drops it,"
                " given as text and in parts"
            )

    def _check_settings(self, settings: Mapping[str, Any]) -> None:
        for name in settings:
            if name in RESERVED:
                raise BadRowError(
                    f"chat_template_kwargs must leave {name} to the engine, got a value for it"
                )
            if not re.search(rf"\b{re.escape(name)}\b", self.source):
                raise BadRowError(
                    "chat_template_kwargs must be names that the chat template reads, got"
                    f" {name!r}, which it does not mention"
                )

    def _find_form(self, role: str) -> Form:
        forms: tuple[tuple[Form, Any], ...] = (("text", PROBE), ("parts", _parts(PROBE)))
        is_rejected = False
        for form, content in forms:
            try:
                text = self._apply(self._conversation(role, content), self.settings)
                # A template that takes text prints a list of parts as Python does.
                if PROBE in text and (form == "text" or str(content) not in text):
                    return form
            except BadRowError:
                is_rejected = True
        # A template that rejects the probe will itself say what is wrong with a real turn.
        return "text" if is_rejected else "dropped"

    def _conversation(self, role: str, content: Any) -> list[Turn]:
        """A short chat in which `role` says `content`, at a place where templates accept it."""
        turn = {"role": role, "content": content}
        if role == "user":
            return [turn]
        plain = self._formed({"role": "user", "content": "Hello"})
        return [plain, turn, plain] if role == "assistant" else [turn, plain]

    def _formed(self, turn: Turn) -> Turn:
        """`turn` in the form that the template takes."""
        content, role = turn.get("content"), str(turn["role"])
        if role == "tool" or not content:
            return turn
        form = self.form(role)
        if form == "dropped":
            raise BadRowError(f"the chat template drops the text of a turn of {role!r}")
        if form == "parts":
            return {**turn, "content": _parts(content) if isinstance(content, str) else content}
        return {**turn, "content": text_of(content)}

    def _apply(
        self, turns: Sequence[Turn], settings: Mapping[str, Any], *,
        continue_final_message: bool = False, add_generation_prompt: bool | None = None,
    ) -> str:  # fmt: skip
        if add_generation_prompt is None:
            add_generation_prompt = not continue_final_message
        try:
            return self.tokenizer.apply_chat_template(
                [dict(turn) for turn in turns],
                chat_template=self._dated_source,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=continue_final_message,
                **settings,
            )
        except Exception as error:  # a template is its author's code and may raise anything
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise BadRowError(f"the chat template rejected the messages: {reason}") from error


def template_source(tokenizer: PreTrainedTokenizerBase, config: ModelConfig) -> str | None:
    """The Jinja text of `model.chat_template`, else of the tokenizer's default template, else None.

    Raises: ConfigError.
    """
    given = config.chat_template
    if given is not None:
        return given if is_template(given) else read_template(given)
    own = tokenizer.chat_template
    if isinstance(own, dict):  # several, by name
        own = own.get("default")
        if own is None:
            raise ConfigError(
                "model.chat_template must be given where the tokenizer names several and none is"
                f" the default, got {', '.join(tokenizer.chat_template)}"
            )
    return own


def pinned(config: ModelConfig, revision: str | None, chat: ChatTemplate | None) -> ModelConfig:
    """The settings that every worker can load at any time, even without a template's file."""
    if chat is None:
        return replace(config, revision=revision)
    given = None if config.chat_template is None else chat.source
    return replace(config, revision=revision, chat_template=given, chat_date=chat.day)


def is_template(text: str) -> bool:
    """Whether `text` is Jinja, and not the path of a Jinja file."""
    return "{{" in text or "{%" in text


def read_template(path: str) -> str:
    """Raises: ConfigError if `path` is no Jinja file."""
    try:
        text = Path(expanduser(path)).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"model.chat_template must be the path of a Jinja file, or a template, got {path!r}:"
            f" {error}"
        ) from None
    if not is_template(text):
        raise ConfigError(
            f"model.chat_template must hold a Jinja template, got {path!r} without {{{{ or {{%"
        )
    return text


def says_date(source: str) -> bool:
    """Whether a template may write the current day."""
    return "strftime_now" in source


def _with_date(source: str, day: str) -> str:
    """`source` with `day` as its today. transformers allows no new function, so Jinja
    defines it."""
    today = date.fromisoformat(day)
    pieces = "".join(f"|replace({part!r}, {today.strftime(part)!r})" for part in DIRECTIVES)
    macro = f"{{% macro strftime_now(format) %}}{{{{ format{pieces} }}}}{{% endmacro %}}"
    return f"{macro}{{{{ '' }}}}{source}"


def begun_text(turns: Sequence[Turn]) -> str | None:
    """The text of an assistant's last turn, which the model is to continue, or None."""
    last = turns[-1] if turns else {}
    if last.get("role") != "assistant" or last.get("tool_calls"):
        return None
    return text_of(last.get("content") or "")


def text_of(content: Any) -> str:
    """The text of a turn's content, given as text or in parts.

    Raises: BadRowError if a part is no text.
    """
    if isinstance(content, str):
        return content
    texts = []
    for part in content:
        if not isinstance(part, Mapping) or not isinstance(part.get("text"), str):
            raise BadRowError(f"content must be text, got the part {str(part)[:60]}")
        texts.append(part["text"])
    return "".join(texts)


def _parts(text: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text}]
