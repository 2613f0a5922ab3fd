"""The settings in which compared runs differ, beside what their labels say."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from dynts_batch.config import Config
from dynts_batch.data.settings_diff import flat
from dynts_batch.report.measures import Measures

#: What labels say already.
_IN_LABELS = {"policy.name", "policy.budget"}
_LACKS = object()


def settings_text(runs: Sequence[Measures]) -> str | None:
    """A line with each key that differs and its value in every run, in their order.

    None if there is no such key. Keys of `run` count as none: they place and cut the work.
    """
    settings = [_settings(run.run.config) for run in runs]
    keys = dict.fromkeys(key for its in settings for key in its if key not in _IN_LABELS)
    parts = []
    for key in keys:
        values = [_shown(its.get(key, _LACKS)) for its in settings]
        if len(set(values)) > 1:
            parts.append(f"{key} {', '.join(values)}")
    return f"Settings that differ, run by run: {'; '.join(parts)}." if parts else None


def _settings(config: Config) -> dict[str, Any]:
    """By dotted key, as a configuration writes them."""
    groups = asdict(config)
    groups["policy"] |= groups["policy"].pop("options")
    del groups["run"]
    return flat(groups)


def _shown(value: object) -> str:
    """`value` in YAML's words, and a text that would not read as one word in quotes."""
    if value is _LACKS:
        return "-"
    is_word = isinstance(value, str) and value.isprintable() and not set(value) & set(" ,;")
    return str(value) if is_word else json.dumps(value, ensure_ascii=False, default=str)
