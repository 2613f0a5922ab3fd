"""What differs between two trees of settings, in lines to be read. Knows nothing about where they come from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def differences(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """A line for each key, with dots, whose value is not the same in both; none if they are equal."""
    old, new = _flatten(stored), _flatten(wanted)
    keys = sorted(key for key in old | new if old.get(key) != new.get(key))
    return [f"{key}: {_shown(old, key)} there, {_shown(new, key)} now" for key in keys]


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _shown(flat: Mapping[str, Any], key: str) -> str:
    return repr(flat[key]) if key in flat else "absent"
