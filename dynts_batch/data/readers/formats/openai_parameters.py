"""What a request of OpenAI's API may ask for besides its messages.

The parameters are as servers understand them, with vLLM's and SGLang's own. Knows nothing about
lines and files.
"""

from __future__ import annotations

from typing import Any

from dynts_batch.config import SamplingConfig
from dynts_batch.data.readers.chat import short
from dynts_batch.errors import BadRowError

#: Parameters that must equal the run's, with the run's key for each.
_SAMPLING = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "max_tokens": "max_new_tokens",
    "max_completion_tokens": "max_new_tokens",
    "n": "num_samples",
    "seed": "seed",
}
#: Parameters that change no token. `model` is one: the run's model answers, whatever a line names.
_WITHOUT_EFFECT = {
    *("messages", "model", "user", "metadata", "store", "service_tier", "safety_identifier"),
    *("prompt_cache_key", "prompt_cache_retention", "prediction", "stream", "stream_options"),
    *("parallel_tool_calls", "request_id", "rid", "priority", "cache_salt", "include_reasoning"),
    *("separate_reasoning", "stream_reasoning", "return_token_ids", "return_tokens_as_token_ids"),
}
_LOGPROBS = ("logprobs", "top_logprobs")
#: Values that ask for nothing, whatever the parameter.
_NOTHING: tuple[Any, ...] = (None, False, 0, "", [], {})
#: A parameter's own ways to ask for nothing, or for what is done anyway.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "repetition_penalty": (1,),
    "length_penalty": (1,),
    "best_of": (1,),
    "tool_choice": ("none", "auto"),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "verbosity": ("medium",),
    "add_generation_prompt": (True,),
    "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (True,),
}


def check_parameter(key: str, value: Any, sampling: SamplingConfig) -> None:
    """Raises: BadRowError if the run does not do what `key` asks for."""
    if key in _WITHOUT_EFFECT or value is None:
        return
    if key in _SAMPLING:
        ours = getattr(sampling, _SAMPLING[key])
        is_off = key == "top_k" and value == -1 and ours == 0  # vLLM's way to say so
        if value != ours and not is_off:
            raise BadRowError(
                f"body.{key} must be the run's sampling.{_SAMPLING[key]} ({ours}), got {value!r}"
            )
    elif key in _NEUTRAL and value in _NEUTRAL[key]:
        return
    elif key in _LOGPROBS and value:
        raise BadRowError(
            f"body.{key} is not supported: sampling.logprobs=true writes the drawn tokens' logprobs"
            f" of every row, got {short(value)}"
        )
    elif key in ("repetition_penalty", "length_penalty") or value not in _NOTHING:
        raise BadRowError(f"body.{key} is not supported, got {short(value)}")
