"""The configurations that come with the package, by name: `quickstart`, `paper/r1-qwen-7b-aime24`.

A wheel has them inside the package. A clone has them beside it, in `configs/`.
"""

from __future__ import annotations

import os
from pathlib import Path

from dynts_batch.errors import ConfigError, choices_hint

_PACKAGE = Path(__file__).parent


def shipped_configs() -> dict[str, Path]:
    """Each configuration's name and file, in order of the names."""
    folder = next(f for f in (_PACKAGE / "configs", _PACKAGE.parent / "configs") if f.is_dir())
    paths = sorted(folder.rglob("*.yaml"))
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in paths}


def find_config(path_or_name: str) -> str:
    """The path of a configuration: a file that exists, or else the shipped one of that name.

    Raises:
        ConfigError: it is neither.
    """
    if os.path.exists(path_or_name):
        return path_or_name
    configs = shipped_configs()
    if path_or_name not in configs:
        raise ConfigError(
            f"cannot read the config file {path_or_name!r}: there is none, and no configuration "
            f"of this name is shipped. {choices_hint(path_or_name, list(configs))}"
        )
    return str(configs[path_or_name])
