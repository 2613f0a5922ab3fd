"""From a YAML file and `key=value` overrides to a checked Config, and back to YAML.

The only file that imports omegaconf. Owns the words of messages about unknown or mistyped keys.
config_rules.py has the rules between keys.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from types import NoneType, UnionType
from typing import IO, Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    ConfigKeyError,
    GrammarParseError,
    InterpolationResolutionError,
    OmegaConfBaseException,
)
from yaml import YAMLError  # type: ignore[import-untyped]  # comes with omegaconf

from dynts_batch.config import Config, PolicyConfig
from dynts_batch.config_rules import validate
from dynts_batch.errors import ConfigError, choices_hint
from dynts_batch.shipped import find_config

T = TypeVar("T")

_QUOTED_OR_NULL = re.compile(
    r"""'([^']|'')*+'|"([^"\\]|\\.)*+"|null|~|""", re.DOTALL | re.IGNORECASE
)


def load_config(path: str | IO[str], overrides: Sequence[str] = ()) -> Config:
    """Read a configuration, apply `key=value` overrides, and check every rule.

    `path` is a YAML file, a shipped name, or an open file.

    Raises:
        ConfigError: the file cannot be read, or a key is unknown, mistyped or breaks a rule.
    """
    groups = _gather_policy_options(_read(path, overrides))
    _check_keys(groups)
    try:
        # Structured nodes of a frozen dataclass are read-only, but a merge gives a new tree.
        merged = OmegaConf.merge(OmegaConf.structured(Config), OmegaConf.create(_escape(groups)))
        config = cast(Config, OmegaConf.to_object(merged))
    except OmegaConfBaseException as error:
        raise _type_error(groups, error) from None
    validate(config)
    return config


def override_config(config: Config, overrides: Sequence[str]) -> Config:
    """`config` with `key=value` overrides, checked as in `load_config`. Raises: ConfigError."""
    return load_config(io.StringIO(to_yaml(config)), overrides)


def to_yaml(config: Config) -> str:
    """`config` as YAML that `load_config` reads back to an equal object."""
    groups = asdict(config)
    groups["policy"] |= groups["policy"].pop("options")
    return OmegaConf.to_yaml(OmegaConf.create(_escape(groups)))


def load_settings(settings_class: type[T], overrides: Sequence[str]) -> T:
    """A flat settings dataclass with `key=value` overrides, for jobs that need no run.

    Raises:
        ConfigError: a key is unknown or mistyped.
    """
    schema = OmegaConf.structured(settings_class)
    try:
        merged = OmegaConf.merge(schema, OmegaConf.from_dotlist(list(overrides)))
        return cast(T, OmegaConf.to_object(merged))
    except ConfigKeyError as error:
        raise ConfigError(
            f"unknown key {error.full_key}. {choices_hint(str(error.full_key), list(schema))}"
        ) from None
    except (OmegaConfBaseException, TypeError, YAMLError) as error:
        key = getattr(error, "full_key", None) or "the settings"
        raise ConfigError(f"cannot read {key}: {_first_line(error)}") from None


# ---- reading -----------------------------------------------------------------------------------


def _read(path: str | IO[str], overrides: Sequence[str]) -> dict[str, Any]:
    """YAML and overrides, merged into plain groups, with interpolations resolved."""
    for override in overrides:
        if not override.partition("=")[1] or not override.partition("=")[0].strip():
            raise ConfigError(f"an override must be key=value, got {override!r}")
    try:
        tree = OmegaConf.load(find_config(path) if isinstance(path, str) else path)
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        raise ConfigError(f"cannot read the config file {path!r}: {error}") from None
    if not OmegaConf.is_dict(tree):
        raise ConfigError(f"the config file {path!r} must hold groups of keys, got a list")
    try:
        merged = OmegaConf.merge(tree, *map(_read_override, overrides))
        groups = cast(
            dict[str, Any], OmegaConf.to_container(merged, resolve=True, throw_on_missing=True)
        )
    except (OmegaConfBaseException, TypeError) as error:
        key = getattr(error, "full_key", None) or "the config"
        is_reference = isinstance(error, InterpolationResolutionError | GrammarParseError)
        hint = r". For ${ itself write \${" if is_reference else ""
        raise ConfigError(f"cannot read {key}: {_first_line(error)}{hint}") from None
    # `memory:` with nothing below it is an empty group, as YAML users expect.
    return {str(group): {} if keys is None else keys for group, keys in groups.items()}


def _read_override(override: str) -> DictConfig:
    """`key=value` as a tree: the value is YAML, but for a key of text that is neither null nor all
    in quotes. YAML would take "Question: {prompt}" for a mapping and " #" for a comment."""
    key, _, value = override.partition("=")
    try:
        if not _is_text(key) or _QUOTED_OR_NULL.fullmatch(value.strip()):
            return OmegaConf.from_dotlist([override])
    except YAMLError as error:
        raise ConfigError(f"cannot read {override}: {_first_line(error)}") from None
    tree = OmegaConf.create()
    OmegaConf.update(tree, key, value)
    return tree


def _is_text(key: str) -> bool:
    group, _, name = key.partition(".")
    hint = get_type_hints(get_type_hints(Config).get(group, object)).get(name)
    return hint in (str, str | None)


def _gather_policy_options(groups: dict[str, Any]) -> dict[str, Any]:
    """Move the keys of `policy` that only some policies have into `policy.options`."""
    policy = groups.get("policy", {})
    if not isinstance(policy, dict):
        return groups
    common = {f.name for f in fields(PolicyConfig)} - {"options"}
    options = {str(key): value for key, value in policy.items() if key not in common}
    known = {key: value for key, value in policy.items() if key in common}
    return groups | {"policy": known | {"options": options}}


def _check_keys(groups: Mapping[str, Any]) -> None:
    hints = get_type_hints(Config)
    for group, keys in groups.items():
        if group not in hints:
            raise ConfigError(f"unknown config key {group}. {choices_hint(group, list(hints))}")
        choices = [f.name for f in fields(hints[group])]
        if not isinstance(keys, Mapping):
            raise ConfigError(f"{group} must hold keys ({', '.join(choices)}), got {keys!r}")
        for key in keys:
            if key not in choices:
                hint = choices_hint(str(key), choices)
                raise ConfigError(f"unknown config key {group}.{key}. {hint}")


def _type_error(groups: Mapping[str, Any], error: OmegaConfBaseException) -> ConfigError:
    """OmegaConf's conversion error in this package's words."""
    group, _, key = (error.full_key or "").partition(".")
    if not key or key not in groups.get(group, {}):
        return ConfigError(f"cannot read the config: {_first_line(error)}")
    hint = get_type_hints(get_type_hints(Config)[group])[key]
    return ConfigError(f"{group}.{key} must be {_describe(hint)}, got {groups[group][key]!r}")


def _describe(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return f"one of {', '.join(get_args(hint))}"
    if get_origin(hint) in (UnionType, Union):
        return " or ".join(_describe(arg) for arg in get_args(hint))
    if get_origin(hint) is list:
        return f"a list of {_describe(get_args(hint)[0])}"
    if get_origin(hint) is dict:
        return "keys with values"
    words = {int: "an integer", float: "a number", str: "text", bool: "true or false"}
    return (words | {NoneType: "null"})[hint]


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _escape(value: Any) -> Any:
    """Keep text that looks like an interpolation plain: interpolations were resolved before."""
    if isinstance(value, dict):
        return {key: _escape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_escape(item) for item in value]
    if not isinstance(value, str):
        return value
    # OmegaConf reads \${ as a plain ${, and halves the backslashes before it.
    return re.sub(r"(\\*)\$\{", lambda match: match[1] * 2 + r"\${", value)
