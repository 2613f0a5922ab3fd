"""What identifies a model. With the same identity, policy, sampling and input, two runs write the
same rows.

That holds as far as batches of other sizes round alike: in float32 on a CPU. Owns the digests of
configuration, chat template, predictor and calibration, and what older versions wrote for the same.
A digest covers contents. It ignores a file's place, and what its header says about its making.
"""

import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from dynts_batch.config import ModelConfig
from dynts_batch.engine.model.chat.template import ChatTemplate
from dynts_batch.engine.model.checkpoint.positions import trained_positions
from dynts_batch.engine.model.companions import Companions
from dynts_batch.engine.model.think_tags import ThinkTags
from dynts_batch.kvcache.model_id import ModelId

#: Keys of a configuration that are not the model: where it was read, and which version wrote it.
_NOT_THE_MODEL = {"_name_or_path", "transformers_version"}
#: Files of the embedded model that were once shipped under another header, by their tensors'
#: digests.
_SHIPPED_AS = {
    "6fc8ee5693f8180ae56672cd5d0d78ef5c8646489ffc26213de35d6bf99a4823":
        "e96bc4615a67f1fd3eecc422fbfa19c6543d842ee697c4a0a9ed8fcd920cc651",
    "3a2129fc410988dde1b6d6fb0891888c2bdcacd7fa22ab5006d9dfea62c1ef94":
        "1c5aecf51e0b729f002fc6ea4df56302139736524911c586e9bab585f9d98662",
}  # fmt: skip


def model_identity(
    model: ModelId,
    dtype: torch.dtype,
    checkpoint: PretrainedConfig,
    tokenizer: PreTrainedTokenizerBase,
    think_tags: ThinkTags,
    companions: Companions,
    chat: ChatTemplate | None,
    settings: ModelConfig,
    stop_token_ids: Collection[int],
) -> dict[str, Any]:
    """The identity, as JSON data."""
    return {
        "name": model.name,
        "revision": model.revision,
        "dtype": str(dtype).removeprefix("torch."),
        # Rounding to 8 bits changes the model.
        "weights": settings.weights,
        # The embedded model's configuration comes with its weights.
        "config_sha256": None if model.name == "embedded" else _config_sha256(checkpoint),
        "weights_sha256": model.weights_sha256,
        # A model's own tokenizer comes with its weights.
        "tokenizer_sha256": None if settings.tokenizer is None else _vocab_sha256(tokenizer),
        "chat_template_sha256": None if chat is None else _sha256(chat.source),
        "chat_template_kwargs": dict(settings.chat_template_kwargs or {}),
        "chat_date": chat.day if chat is not None else None,
        "think_tags": list(think_tags),
        "stop_token_ids": sorted(stop_token_ids),
        "trained_positions": trained_positions(checkpoint.get_text_config(decoder=True)),
        # The content, not the path: another predictor under the same name keeps other tokens.
        "predictor_sha256": _tensors_sha256(companions.predictor),
        "thoughts_sha256": _tensors_sha256(companions.thoughts),
    }


def in_todays_words(
    stored: Mapping[str, Any],
    today: Mapping[str, Any],
    given_revision: str | None,
    model_config: PretrainedConfig,
    companions: Companions,
    stop_token_ids: list[int],
) -> dict[str, Any]:
    """The identity `stored`, with `today`'s value if an older version wrote another one for the
    same.

    `given_revision`: that version stored a hub model's revision as it was set. `stop_token_ids`:
    those of a version that did not store them.
    """
    lacking: dict[str, Any] = {"stop_token_ids": stop_token_ids, "weights": None}
    lacking |= {key: today[key] for key in ("chat_date", "trained_positions")}
    stored = {**lacking, **stored}
    former: dict[str, list[str | None]] = {
        "revision": [given_revision],
        "config_sha256": [_sha256(model_config.to_json_string(use_diff=False))],
    }
    if today["name"] == "embedded":  # its digest included the folder of the installation
        former["config_sha256"].append(stored.get("config_sha256"))
    for key, path in (
        ("predictor_sha256", companions.predictor),
        ("thoughts_sha256", companions.thoughts),
    ):
        if path is not None:
            former[key] = [_sha256(path.read_bytes()), _SHIPPED_AS.get(today[key], today[key])]
    return {
        key: today.get(key) if value in former.get(key, []) else value
        for key, value in stored.items()
    }


def _vocab_sha256(tokenizer: PreTrainedTokenizerBase) -> str:
    return _sha256(json.dumps(sorted(tokenizer.get_vocab().items())))


def _config_sha256(model_config: PretrainedConfig) -> str:
    settings = json.loads(
        model_config.to_json_string(use_diff=False),
        object_hook=lambda group: {k: group[k] for k in group.keys() - _NOT_THE_MODEL},
    )
    return _sha256(json.dumps(settings, sort_keys=True))


def _tensors_sha256(path: Path | None) -> str | None:
    """Digest of names, types, shapes and values. Which model a file is for is checked when it is
    read."""
    if path is None:
        return None
    digest = hashlib.sha256()
    for name, tensor in sorted(load_file(path).items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _sha256(content: str | bytes) -> str:
    data = content.encode() if isinstance(content, str) else content
    return hashlib.sha256(data).hexdigest()
