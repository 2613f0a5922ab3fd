"""The model that `model.name=fake` names, and the settings of its engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from dynts_batch.config import ModelConfig
from dynts_batch.errors import ConfigError, choices_hint

NAME = "fake"


@dataclass(frozen=True)
class FakeSettings:
    """The settings in `model.name=fake:KEY=VALUE,...`."""

    step_s: float = 0.0
    """Seconds of device time that one step takes, whatever the batch."""
    simulated: bool = False
    """The device time is counted, not spent."""
    log: str | None = None
    """File that gets a line for every request admitted. Work done twice stands there twice."""

    @classmethod
    def parse(cls, name: str) -> Self:
        """Raises: ConfigError for an unknown key or a wrong value."""
        given = dict(_pair(part) for part in name.partition(":")[2].split(",") if part)
        choices = [field.name for field in fields(cls)]
        if unknown := given.keys() - set(choices):
            hint = choices_hint(min(unknown), choices)
            raise ConfigError(f"model.name: unknown setting {min(unknown)!r} of {name!r}. {hint}")
        simulated, step_s = given.get("simulated", "false"), given.get("step_s", "0")
        if simulated not in ("true", "false"):
            raise ConfigError(f"model.name: simulated must be true or false, got {simulated!r}")
        if not step_s.replace(".", "", 1).isdecimal():
            raise ConfigError(f"model.name: step_s must be a number of seconds, got {step_s!r}")
        return cls(float(step_s), simulated == "true", given.get("log"))


@dataclass(frozen=True)
class FakeModel:
    """Any fake is the same model, whatever its speed."""

    settings: ModelConfig
    identity: Mapping[str, Any]

    @classmethod
    def check(cls, settings: ModelConfig) -> Self:
        """Raises: ConfigError if the settings in the name are wrong."""
        FakeSettings.parse(settings.name)
        return cls(settings, {"name": NAME})

    def in_todays_words(self, stored: Mapping[str, Any]) -> dict[str, Any]:
        return dict(stored)


def _pair(part: str) -> tuple[str, str]:
    key, _, value = part.partition("=")
    return key, value


def is_fake(name: str) -> bool:
    """Whether `model.name` asks for the engine without a model."""
    return name.partition(":")[0] == NAME
