"""Whether a model's chat template fits the input: it renders chats, and takes a system prompt."""

from dynts_batch.config import InputConfig
from dynts_batch.engine.model.chat.template import PROBE, ChatTemplate
from dynts_batch.errors import BadRowError, ConfigError


def check_chats(config: InputConfig, name: str, chat: ChatTemplate | None) -> None:
    """Check that `chat`, the template of the model `name`, can render what the input holds.

    Raises: ConfigError if the input holds chats, or a system prompt, and there is no template for
    them.
    """
    key = "messages_column" if config.messages_column else "format"
    if chat is None and (config.messages_column or config.format == "openai"):
        raise ConfigError(
            f"input.{key} needs a chat template, and {name!r} has none: name one as"
            f" model.chat_template, got {getattr(config, key)!r}"
        )
    if config.system_prompt is None:
        return
    if chat is None:
        raise ConfigError(
            f"input.system_prompt needs a chat template, and {name!r} has none: name one as"
            f" model.chat_template, got {config.system_prompt!r}"
        )
    turns = [
        {"role": "system", "content": config.system_prompt},
        {"role": "user", "content": PROBE},
    ]
    try:
        chat.render(turns)
    except BadRowError as error:
        raise ConfigError(f"input.system_prompt: {error}") from None
