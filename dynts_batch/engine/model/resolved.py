"""The model that a configuration names, resolved: all that is known of it without loading weights.

It is found once, to refuse or identify a run, or to load an engine. What it knows holds for this
machine and this moment. Another machine has the files elsewhere, so it is not sent there. Only the
configuration is sent, with its revision pinned.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoConfig, PretrainedConfig, PreTrainedTokenizerBase

from dynts_batch.config import ModelConfig
from dynts_batch.engine.model.chat.stop_tokens import find_stop_token_ids, former_stop_token_ids
from dynts_batch.engine.model.chat.template import ChatTemplate, pinned
from dynts_batch.engine.model.checkpoint.gguf_rope import restore_rope
from dynts_batch.engine.model.checkpoint.positions import check_positions, num_positions
from dynts_batch.engine.model.checkpoint.quantization import check_quantization, quant_method
from dynts_batch.engine.model.checkpoint.skeleton import MODEL_ERRORS, make_skeleton
from dynts_batch.engine.model.checkpoint.weight_names import check_weight_names
from dynts_batch.engine.model.companions import Companions, find_companions
from dynts_batch.engine.model.files import ModelFiles, find_files, no_such_model
from dynts_batch.engine.model.identity import in_todays_words, model_identity
from dynts_batch.engine.model.int8.weight import check_int8
from dynts_batch.engine.model.support import check_support
from dynts_batch.engine.model.think_tags import ThinkTags, find_think_tags
from dynts_batch.engine.model.tokenizer import load_tokenizer
from dynts_batch.engine.model.weights import gguf_sha256, weights_sha256
from dynts_batch.errors import ConfigError
from dynts_batch.kvcache.model_id import ModelId


@dataclass(frozen=True)
class ResolvedModel:
    """A model that the arena engine can run."""

    settings: ModelConfig
    """For a hub model, with the commit to which its revision points now: a branch moves on."""
    given_revision: str | None
    files: ModelFiles
    id: ModelId
    checkpoint: PretrainedConfig
    """The configuration as in the files. If the model also sees or hears, it has all parts."""
    config: PretrainedConfig
    """The configuration of the part that reads and writes text; mostly the same object."""
    device: torch.device
    dtype: torch.dtype
    tokenizer: PreTrainedTokenizerBase
    think_tags: ThinkTags
    chat: ChatTemplate | None
    stop_token_ids: frozenset[int]
    companions: Companions
    identity: Mapping[str, Any]
    """JSON data, see identity.py."""

    def in_todays_words(self, stored: Mapping[str, Any]) -> dict[str, Any]:
        """A stored identity of an older version, in today's form as far as it means the same."""
        if stored == self.identity:
            return dict(stored)
        former = former_stop_token_ids(self.files, self.checkpoint, self.tokenizer)
        return in_todays_words(
            stored, self.identity, self.given_revision, self.checkpoint, self.companions, former
        )


def resolve_model(
    config: ModelConfig, needed: Collection[type] = (), device: torch.device | None = None
) -> ResolvedModel:
    """Find the model, and what a policy needs beside it, by type.

    `device`: where it will run; None: here.

    Raises: ConfigError if there is no such model, if files of it are missing or damaged, or if the
    engine cannot run it.
    """
    device = pick_device(config) if device is None else device
    if config.weights == "int8":
        check_int8(device)
    files = find_files(config)
    checkpoint = _read_config(config.name, files)
    check_support(config.name, checkpoint)
    check_quantization(config.name, checkpoint, config.weights)
    model_config = checkpoint.get_text_config(decoder=True)
    weights = _weights_sha256(files)
    model = ModelId(config.name, files.revision, weights)
    tokenizer = load_tokenizer(config.name, files, model_config)
    think_tags = find_think_tags(tokenizer, config.think_tags)
    chat = ChatTemplate.of(tokenizer, config, think_tags)
    stop_token_ids = find_stop_token_ids(
        config.name, files, checkpoint, tokenizer, think_tags, chat
    )
    companions = find_companions(config, files, model, model_config, needed)
    dtype = _pick_dtype(config, checkpoint, device)
    return ResolvedModel(
        settings=pinned(config, files.revision, chat),
        given_revision=config.revision,
        files=files,
        id=model,
        checkpoint=checkpoint,
        config=model_config,
        device=device,
        dtype=dtype,
        tokenizer=tokenizer,
        think_tags=think_tags,
        chat=chat,
        stop_token_ids=stop_token_ids,
        companions=companions,
        identity=model_identity(
            model,
            dtype,
            checkpoint,
            tokenizer,
            think_tags,
            companions,
            chat,
            config,
            stop_token_ids,
        ),
    )


def check_skeleton(model: ResolvedModel, max_new_tokens: int) -> None:
    """Check the model without its weights, and its positions for so many new tokens.

    Raises: ConfigError if no model can be made of the configuration, if a local one's files lack
    weights, or if its positions are too few.
    """
    name, folder = model.settings.name, model.files.folder
    trust = model.files.trust_remote_code
    skeleton = make_skeleton(name, model.checkpoint, trust_remote_code=trust)
    if folder is not None and quant_method(model.checkpoint) is None:
        check_weight_names(name, sorted(folder.glob("model*.safetensors")), skeleton)
    check_positions(name, num_positions(skeleton, model.config), max_new_tokens)


def _weights_sha256(files: ModelFiles) -> str | None:
    """None for a hub model, which its commit identifies."""
    if files.gguf is not None:
        return gguf_sha256(files.gguf)
    return None if files.folder is None else weights_sha256(files.folder)


def _read_config(name: str, files: ModelFiles) -> PretrainedConfig:
    try:
        config = AutoConfig.from_pretrained(**files.source)
    except MODEL_ERRORS as error:
        raise no_such_model(name, error) from None
    if files.gguf is not None:
        restore_rope(files.gguf, config)
    return config


def pick_device(config: ModelConfig) -> torch.device:
    """The device of `model.device`.

    Raises: ConfigError if it asks for cuda and there is none.
    """
    available = torch.cuda.is_available()
    if config.device == "cuda" and not available:
        raise ConfigError("model.device is cuda, but torch sees no GPU here; choices: auto, cpu")
    return torch.device("cuda" if available and config.device != "cpu" else "cpu")


def _pick_dtype(
    config: ModelConfig, checkpoint: PretrainedConfig, device: torch.device
) -> torch.dtype:
    """`auto` is float32 on a CPU and the checkpoint's own dtype on a GPU."""
    if config.dtype != "auto":
        return getattr(torch, config.dtype)
    return torch.float32 if device.type == "cpu" else (checkpoint.dtype or torch.bfloat16)
