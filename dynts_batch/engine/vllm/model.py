"""The model of a run by vLLM: whether vLLM has it, and what identifies it. Loads no weights."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from dynts_batch.config import Config, ModelConfig
from dynts_batch.engine.model.chat.stop_tokens import find_stop_token_ids
from dynts_batch.engine.model.chat.template import ChatTemplate, pinned
from dynts_batch.engine.model.companions import Companions
from dynts_batch.engine.model.files import ModelFiles, find_files, no_such_model
from dynts_batch.engine.model.identity import model_identity
from dynts_batch.engine.model.think_tags import ThinkTags, find_think_tags
from dynts_batch.engine.model.tokenizer import load_tokenizer
from dynts_batch.engine.model.weights import weights_sha256
from dynts_batch.engine.vllm.arguments import check_arguments, check_rules
from dynts_batch.engine.vllm.library import import_vllm, vllm_version
from dynts_batch.errors import ConfigError
from dynts_batch.kvcache.model_id import ModelId


@dataclass(frozen=True)
class VllmModel:
    """A model that the installed vLLM can run."""

    settings: ModelConfig
    """The model settings, with the commit that a hub model's revision stands for now."""
    path: str
    tokenizer: PreTrainedTokenizerBase
    think_tags: ThinkTags
    chat: ChatTemplate | None
    stop_token_ids: frozenset[int]
    dtype: str
    on_gpu: bool
    identity: Mapping[str, Any]

    def in_todays_words(self, stored: Mapping[str, Any]) -> dict[str, Any]:
        """No older version has written one."""
        return dict(stored)


def resolve_vllm_model(config: Config) -> VllmModel:
    """Find the model, for this machine's vLLM.

    Raises: ConfigError where there is no such model, vLLM does not know it,
    or settings contradict this engine.
    """
    check_rules(config)
    check_arguments(config.engine.vllm)
    files, name = find_files(config.model), config.model.name
    if files.gguf is not None:
        raise ConfigError(
            f"engine.kind must be arena for a model in a GGUF file, got vllm and {name!r}"
        )
    on_gpu = _is_on_gpu(config.model)
    model_config = _read_config(name, files)
    text_config = model_config.get_text_config()
    tokenizer = load_tokenizer(name, files, text_config)
    think_tags = find_think_tags(tokenizer, config.model.think_tags)
    chat = ChatTemplate.of(tokenizer, config.model, think_tags)
    stop_token_ids = find_stop_token_ids(name, files, model_config, tokenizer, think_tags, chat)
    weights = None if files.folder is None else weights_sha256(files.folder)
    dtype = _pick_dtype(config.model, text_config, on_gpu=on_gpu)
    known = ModelId(name, files.revision, weights)
    return VllmModel(
        settings=pinned(config.model, files.revision, chat),
        path=files.path,
        tokenizer=tokenizer,
        think_tags=think_tags,
        chat=chat,
        stop_token_ids=stop_token_ids,
        dtype=dtype,
        on_gpu=on_gpu,
        identity={
            **model_identity(
                known,
                getattr(torch, dtype),
                model_config,
                tokenizer,
                think_tags,
                Companions(),
                chat,
                config.model,
                stop_token_ids,
            ),
            "engine": {
                "kind": "vllm",
                "version": vllm_version(),
                "arguments": dict(config.engine.vllm),
                "lora_sha256": _folder_sha256(config.engine.lora),
            },
        },
    )


def _read_config(name: str, files: ModelFiles) -> PretrainedConfig:
    """The configuration, by vLLM's reader, which knows models that transformers does not."""
    try:
        found = import_vllm("vllm.transformers_utils.config").get_config(
            files.path, trust_remote_code=files.trust_remote_code, revision=files.revision
        )
    except (OSError, ValueError) as error:
        raise no_such_model(name, error) from None
    supported = import_vllm("vllm.model_executor.models").ModelRegistry.get_supported_archs()
    architectures = found.architectures or []
    if not set(architectures) & set(supported):
        raise ConfigError(
            f"model.name must be of an architecture that vLLM {vllm_version()} has, got {name!r} of"
            f" {', '.join(architectures) or 'none'}"
        )
    return found


def _is_on_gpu(model: ModelConfig) -> bool:
    """Raises: ConfigError if the device does not fit: a build of vLLM is for one kind."""
    is_cpu = bool(import_vllm("vllm.platforms").current_platform.is_cpu())
    wanted = {"auto": is_cpu, "cpu": True, "cuda": False}[model.device]
    if wanted != is_cpu:
        here = "CPUs" if is_cpu else "GPUs"
        raise ConfigError(
            f"model.device must fit the installed vLLM, whose build is for {here}, got"
            f" {model.device}"
        )
    return not is_cpu


def _pick_dtype(config: ModelConfig, text_config: PretrainedConfig, *, on_gpu: bool) -> str:
    """As for the arena: "auto" is float32 on a CPU, and the checkpoint's own dtype on a GPU."""
    if config.dtype != "auto":
        return config.dtype
    return str(text_config.dtype or "bfloat16").removeprefix("torch.") if on_gpu else "float32"


def _folder_sha256(path: str | None) -> str | None:
    """Of an adapter, which is small: every byte of its files.

    Raises: ConfigError where it is no adapter in a local folder.
    """
    if path is None:
        return None
    folder = Path(path)
    if not (folder / "adapter_config.json").is_file():
        raise ConfigError(
            "engine.lora must be the folder of a LoRA adapter, with its adapter_config.json, got"
            f" {path!r}"
        )
    digest = hashlib.sha256()
    for file in _files_of(folder):
        digest.update(f"{file.relative_to(folder)}\n".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _files_of(folder: Path) -> Iterable[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())
