"""The model that a worker has loaded must be the run's:
another node may hold other files under the same path."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any

from dynts_batch.errors import ConfigError

#: What is compared: contents. The device decides the dtype, and a release of transformers how it
#: writes a configuration.
CONTENTS = {
    "weights_sha256": "weights",
    "chat_template_sha256": "a chat template",
    "predictor_sha256": "a predictor",
    "thoughts_sha256": "a calibration of thoughts",
}


def check_same_model(name: str, loaded: Mapping[str, Any], of_run: Mapping[str, Any]) -> None:
    """`loaded` and `of_run`: identities of the model `name`, in a worker and in the fingerprint.

    Raises: ConfigError where a content of both is not the same.
    """
    both = loaded.keys() & of_run.keys()
    for key, content in CONTENTS.items():
        if key in both and loaded[key] != of_run[key]:
            raise ConfigError(
                f"model.name must be the same model on every node, got {content} of {name!r} on"
                f" {socket.gethostname()} other than the run's: copy its files there again, or name"
                " another run.dir"
            )
