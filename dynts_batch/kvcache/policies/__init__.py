"""The registry of eviction policies: one method per file. Importing this package registers them
all."""

from collections.abc import Callable
from dataclasses import MISSING, Field, fields
from importlib import import_module
from pkgutil import iter_modules
from types import NoneType
from typing import Any, get_args, get_type_hints

from dynts_batch.config import PolicyConfig
from dynts_batch.errors import ConfigError, choices_hint
from dynts_batch.kvcache.policy import Policy
from dynts_batch.kvcache.recorders import RECORDERS

POLICIES: dict[str, type[Policy]] = {}


def register(name: str) -> Callable[[type[Policy]], type[Policy]]:
    """Class decorator: make a policy available as `policy.name=NAME`.

    Raises: ConfigError if another policy has that name.
    """

    def add(policy_class: type[Policy]) -> type[Policy]:
        if name in POLICIES:
            raise ConfigError(f"policy.name must be new to be registered, got {name!r} again")
        policy_class.name = name
        POLICIES[name] = policy_class
        return policy_class

    return add


def make_policy(config: PolicyConfig) -> Policy:
    """The configured policy.

    Raises: ConfigError for an unknown policy, an unknown or mistyped parameter, or a broken rule.
    """
    policy_class = _class_of(config.name)
    hints = get_type_hints(policy_class)
    own = {f.name: hints[f.name] for f in _own_fields(policy_class)}
    for key, value in config.options.items():
        _check_option(config.name, key, value, own)
    common = {f.name: getattr(config, f.name) for f in fields(Policy)}
    policy = policy_class(**common, **config.options)
    _ = policy.stored_in  # raises for an unknown format
    if unknown := set(policy.requires) - RECORDERS.keys():
        raise ConfigError(
            f"policy {config.name!r} must require only {', '.join(sorted(RECORDERS))}, got"
            f" {min(unknown)!r}"
        )
    return policy


def default_options(name: str) -> dict[str, Any]:
    """The defaults of a policy's own parameters.

    Raises: ConfigError for an unknown policy.
    """
    policy_class = _class_of(name)
    return {f.name: f.default for f in _own_fields(policy_class) if f.default is not MISSING}


def protects_prompt(config: PolicyConfig) -> bool:
    """What `protect_prompt` is for the configured policy, null resolved.

    Raises: ConfigError for an unknown policy.
    """
    if config.protect_prompt is None:
        return _class_of(config.name).protects_prompt
    return config.protect_prompt


def _class_of(name: str) -> type[Policy]:
    return POLICIES.get(name) or _import_policy(name)


def _own_fields(policy_class: type[Policy]) -> list[Field[Any]]:
    common = {f.name for f in fields(Policy)}
    return [f for f in fields(policy_class) if f.name not in common]


def _import_policy(name: str) -> type[Policy]:
    """The class that `name`, "module:Class", names. A worker imports it again by that name.

    Raises: ConfigError if there is no such class.
    """
    module_name, _, class_name = name.partition(":")
    if not module_name or not class_name:
        hint = choices_hint(name, sorted(POLICIES))
        raise ConfigError(f"policy.name must be a policy or module:Class, got {name!r}. {hint}")
    rule = f"policy.name must be one of {', '.join(sorted(POLICIES))} or module:Class, got {name!r}"
    try:
        found = getattr(import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{rule}: {error}") from None
    if not (isinstance(found, type) and issubclass(found, Policy)):
        raise ConfigError(f"{rule}, which is no Policy")
    return POLICIES.get(name) or register(name)(found)


def _check_option(policy: str, key: str, value: object, own: dict[str, Any]) -> None:
    if key not in own:
        choices = sorted(own.keys() | {f.name for f in fields(Policy)})
        raise ConfigError(
            f"unknown config key policy.{key} for policy {policy!r}. {choices_hint(key, choices)}"
        )
    wanted = get_args(own[key]) or (own[key],)  # the types of a union, or the one
    # An integer is a fine float, but a bool is no integer.
    if type(value) not in wanted and not (float in wanted and type(value) is int):
        names = " or ".join("null" if kind is NoneType else kind.__name__ for kind in wanted)
        raise ConfigError(f"policy.{key} must be of type {names}, got {value!r}")


for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
