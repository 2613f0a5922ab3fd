"""The differences between two trees of settings, as lines for a reader."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def differences(
    stored: Mapping[str, Any], wanted: Mapping[str, Any], defaults: Mapping[str, Any]
) -> list[str]:
    """One line for each dotted key whose value differs; none if the trees are equal.

    A tree may lack a key because it is older than the key. The key then has its value in
    `defaults`, or None.
    """
    old, new, default = flat(stored), flat(wanted), flat(defaults)
    old_all, new_all = default | old, default | new
    keys = sorted(key for key in old | new if old_all.get(key) != new_all.get(key))
    return [
        f"{key}: {_shown(old, key, default)} there, {_shown(new, key, default)} now" for key in keys
    ]


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The leaves of `tree` by dotted key."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            leaves |= flat(value, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves


def _shown(leaves: Mapping[str, Any], key: str, default: Mapping[str, Any]) -> str:
    if key in leaves:
        return repr(leaves[key])
    return f"absent ({default[key]!r})" if key in default else "absent"
