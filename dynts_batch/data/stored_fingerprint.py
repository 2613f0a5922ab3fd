"""The fingerprint in a run directory, checked and compared: what all rows of the run share.

Of its keys it knows only the two counts without which shard numbers mean nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from dynts_batch.data.settings_diff import differences
from dynts_batch.errors import FingerprintError, RunDirError

SHARD_KEYS = ("num_units", "shard_rows")


def checked(path: str, stored: Mapping[str, Any] | None, groups: Sequence[str]) -> dict[str, Any]:
    """The fingerprint that the run directory at `path` has `stored`.

    Raises: RunDirError if there is none, or if it lacks a count or one of the `groups` of keys.
    """
    if stored is None:
        raise RunDirError(f"{path} is not a run directory: it has no fingerprint.json")
    for key in SHARD_KEYS:
        if type(stored.get(key)) is not int or stored[key] < 1:
            raise RunDirError(f"{path}/fingerprint.json is damaged: {key} must be a count")
    for group in groups:
        if not isinstance(stored.get(group), dict):
            raise RunDirError(f"{path}/fingerprint.json is damaged: {group} must hold keys")
    return dict(stored)


def refuse_another(
    path: str,
    stored: Mapping[str, Any],
    wanted: Mapping[str, Any],
    defaults: Mapping[str, Any],
) -> None:
    """Raises: FingerprintError, with the differences, if the `stored` run is not the `wanted` one.

    A key that `stored` lacks has its default.
    """
    found = differences(stored, json.loads(json.dumps(wanted)), defaults)
    if not found:
        return
    raise FingerprintError(
        f"{path} holds a run with other settings:\n"
        + "\n".join(f"  {line}" for line in found)
        + "\nRestore these settings to resume it, or choose another run.dir."
    )
