"""Every exception that this package raises on purpose. Knows nothing about who raises it.

    DyntsError
    |-- ConfigError (ValueError)      a configuration key is unknown, mistyped or breaks a rule
    |-- InputError (ValueError)       the data set as a whole cannot be used
    |-- RunDirError                   the run directory cannot be used for this run
    |   `-- FingerprintError          it holds a run with other settings
    `-- RowError                      one request failed; the run goes on
        |-- BadRowError               the row holds no usable prompt
        |-- PromptTooLongError        the prompt is longer than the settings allow
        |-- NonFiniteLogitsError      the model gave no number to draw a token by
        |-- EngineError               the engine gave the request up
        `-- QuarantinedError          the request killed its worker too often

ConfigError and InputError are a user's mistake and come before a GPU is taken. A RowError never
leaves the run. It becomes a row with `finish_reason="error"`, whose `error_type` is the class name.

All take one message, and must: `BaseException.__reduce__` rebuilds an exception from `args`. An
exception with another constructor dies in Ray's unpickling and never reaches the user.
"""

import difflib
from collections.abc import Sequence


def choices_hint(got: str, choices: Sequence[str]) -> str:
    """The end of a message about a wrong name: the nearest right one, then all of them.

    >>> choices_hint("windw", ["full", "window"])
    'Did you mean window? Choices: full, window'
    """
    near = difflib.get_close_matches(got, choices, n=1)
    hint = f"Did you mean {near[0]}? " if near else ""
    return f"{hint}Choices: {', '.join(choices)}"


class DyntsError(Exception):
    """Root of the tree. It catches all that the package raises on purpose."""


class ConfigError(DyntsError, ValueError):
    """The message names the key, the rule, the value got and the choices."""


class InputError(DyntsError, ValueError):
    """The message names the file, the rule and the place (row, line or column)."""


class RunDirError(DyntsError):
    """The run directory is unusable: unwritable, damaged, or not a run directory."""


class FingerprintError(RunDirError):
    """The run directory holds a run with other settings; the message lists the differences."""


class RowError(DyntsError):
    """One request failed. Raised (or stored) per row, never for the whole run."""


class BadRowError(RowError):
    """The source row holds no usable prompt: broken JSON, wrong UTF-8, null or empty prompt."""


class PromptTooLongError(RowError):
    """The prompt is longer than policy.budget, memory.max_prompt_tokens or the model allow."""


class NonFiniteLogitsError(RowError):
    """The model's logits were NaN or infinite, so any token would be made up."""


class EngineError(RowError):
    """The engine ended the request, and neither by a stop nor by a limit."""


class QuarantinedError(RowError):
    """The request was in flight each time a worker died, `run.max_attempts` times."""
