"""The registry of eviction policies: one method per file; importing this package registers them all."""

from collections.abc import Callable
from dataclasses import fields
from importlib import import_module
from pkgutil import iter_modules
from typing import get_type_hints

from dynts_batch.config import PolicyConfig
from dynts_batch.errors import ConfigError, choices_hint
from dynts_batch.kvcache.policy import RECORDED, Policy

POLICIES: dict[str, type[Policy]] = {}


def register(name: str) -> Callable[[type[Policy]], type[Policy]]:
    """Class decorator: make a policy available as `policy.name=NAME`."""

    def add(policy_class: type[Policy]) -> type[Policy]:
        assert name not in POLICIES, f"policy {name!r} is registered twice"
        assert set(policy_class.requires) <= RECORDED, f"{name!r} requires what no engine records"
        policy_class.name = name
        POLICIES[name] = policy_class
        return policy_class

    return add


def make_policy(config: PolicyConfig) -> Policy:
    """The configured policy.

    Raises: ConfigError for an unknown policy, an unknown or mistyped parameter, or a broken rule.
    """
    if config.name not in POLICIES:
        raise ConfigError(
            f"policy.name must be one of {', '.join(sorted(POLICIES))}, got {config.name!r}"
        )
    policy_class = POLICIES[config.name]
    common = {f.name for f in fields(Policy)}
    own = {
        f.name: get_type_hints(policy_class)[f.name]
        for f in fields(policy_class)
        if f.name not in common
    }
    for key, value in config.options.items():
        _check_option(config.name, key, value, own)
    return policy_class(**{key: getattr(config, key) for key in common}, **config.options)


def _check_option(policy: str, key: str, value: object, own: dict[str, type]) -> None:
    if key not in own:
        choices = sorted(own.keys() | {f.name for f in fields(Policy)})
        raise ConfigError(
            f"unknown config key policy.{key} for policy {policy!r}. {choices_hint(key, choices)}"
        )
    wanted = own[key]
    # An integer is a fine float, a bool is no integer.
    if type(value) is not wanted and not (wanted is float and type(value) is int):
        raise ConfigError(f"policy.{key} must be of type {wanted.__name__}, got {value!r}")


for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
