"""vLLM's engine arguments for a run: ours, and those that the user passes on in `engine.vllm`."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from dynts_batch.config import Config
from dynts_batch.engine.vllm.library import import_vllm, vllm_version
from dynts_batch.errors import ConfigError, choices_hint

#: Sequences decoded together if `memory.max_seqs` is null.
MAX_SEQS_ON_CPU, MAX_SEQS_ON_GPU = 32, 256
#: Share of a GPU's memory that vLLM takes, weights included, if `memory.kv_gib` is null.
GPU_SHARE = 0.9

#: Arguments that a key of ours sets, or that this engine must set itself.
_OURS = {
    "model": "model.name",
    "tokenizer": "model.name",
    "revision": "model.revision",
    "dtype": "model.dtype",
    "trust_remote_code": "model.trust_remote_code",
    "seed": "sampling.seed",
    "max_model_len": "memory.max_prompt_tokens and sampling.max_new_tokens",
    "max_num_seqs": "memory.max_seqs",
    "kv_cache_memory_bytes": "memory.kv_gib",
    "tensor_parallel_size": "workers.num_gpus",
    "generation_config": "sampling",
    "override_generation_config": "sampling",
    "enable_lora": "engine.lora",
    "skip_tokenizer_init": None,
    "runner": None,
    "disable_log_stats": None,
    "distributed_executor_backend": None,
    "data_parallel_size": None,
    "prefill_context_parallel_size": None,
    "nnodes": None,
}


def check_rules(config: Config) -> None:
    """Refuse settings that contradict this engine, without importing vLLM. Raises: ConfigError."""
    for key, got, right, why in _only_the_arena(config):
        if got != right:
            wanted = "left out" if right is None else str(right).lower()
            raise ConfigError(
                f"{key} must be {wanted} when engine.kind is vllm, {why}, got {got}; choices with"
                " it: engine.kind=arena"
            )
    for key in config.engine.vllm:
        if key in _OURS:
            wanted = f": set {_OURS[key]}" if _OURS[key] else ", since this engine sets it itself"
            raise ConfigError(f"engine.vllm.{key} must not be given{wanted}")
    _ranks(config)


def _only_the_arena(config: Config) -> list[tuple[str, Any, Any, str]]:
    """Keys: each with its value, the value that vLLM needs, and why."""
    policy, sampling = config.policy, config.sampling
    formats = "whose own KV formats are engine.vllm.kv_cache_dtype"
    return [
        ("policy.name", policy.name, "full", "which keeps every token"),
        ("policy.quantize", policy.quantize, False, formats),
        ("run.trace_rows", config.run.trace_rows, 0, "which evicts nothing that could be traced"),
        (
            "sampling.max_thinking_tokens",
            sampling.max_thinking_tokens,
            None,
            "which ends no thinking",
        ),
        ("sampling.logprobs", sampling.logprobs, False, "which is not asked for them"),
    ]


def _ranks(config: Config) -> tuple[int, int]:
    """GPUs of a worker, and how many of them hold each layer.

    Raises: ConfigError.
    """
    num_gpus = config.workers.num_gpus or 1
    num_stages = config.engine.vllm.get("pipeline_parallel_size", 1)
    if num_gpus > 1 and num_gpus != int(num_gpus):
        raise ConfigError(
            "workers.num_gpus must be a whole number above 1, which is vLLM's tensor parallelism,"
            f" got {num_gpus:g}"
        )
    num_ranks = max(1, int(num_gpus))
    if not isinstance(num_stages, int) or num_stages < 1 or num_ranks % num_stages:
        raise ConfigError(
            f"engine.vllm.pipeline_parallel_size must divide workers.num_gpus ({num_ranks}), got"
            f" {num_stages!r}"
        )
    return num_ranks, num_ranks // num_stages


def engine_arguments(
    config: Config, *, dtype: str, on_gpu: bool, gpu_share: float = 1.0
) -> dict[str, Any]:
    """Keyword arguments of vLLM's EngineArgs; `dtype`: float32, bfloat16 or float16.

    Raises: ConfigError where it would take more memory than it is given.
    """
    memory, sampling = config.memory, config.sampling
    if not on_gpu and memory.kv_gib is None:
        raise ConfigError(
            "memory.kv_gib is required when engine.kind is vllm on a CPU, where vLLM would take"
            " nearly all memory, got nothing"
        )
    num_ranks, num_per_layer = _ranks(config)
    arguments: dict[str, Any] = {
        "model": config.model.name,
        "revision": config.model.revision,
        "trust_remote_code": config.model.trust_remote_code,
        "dtype": dtype,
        "seed": 0,  # each request brings its own
        "max_model_len": memory.max_prompt_tokens + sampling.max_new_tokens,
        "max_num_seqs": memory.max_seqs or (MAX_SEQS_ON_GPU if on_gpu else MAX_SEQS_ON_CPU),
        "generation_config": "vllm",  # the run's settings, not those of the model's author
        "skip_tokenizer_init": True,  # tokens go in and come out
        "disable_log_stats": False,  # times and preemptions of each request
        # Off, so that a step returns what it computed: its time is charged to who was in it.
        "async_scheduling": False,
        "enable_prefix_caching": sampling.num_samples > 1,
        "enforce_eager": not on_gpu,  # compiling takes minutes, and a CPU gains little by it
        "tensor_parallel_size": num_per_layer,
        # Named, because inside a Ray actor vLLM would choose Ray for it.
        "distributed_executor_backend": "mp" if num_ranks > 1 else "uni",
    }
    if memory.kv_gib is not None:
        arguments["kv_cache_memory_bytes"] = int(memory.kv_gib * 2**30) // num_ranks
    else:
        arguments["gpu_memory_utilization"] = GPU_SHARE * gpu_share
    if config.engine.lora is not None:
        arguments["enable_lora"] = True
    return arguments | dict(config.engine.vllm)


def check_arguments(given: Mapping[str, Any]) -> None:
    """Raises: ConfigError where the installed vLLM does not know one."""
    known = [field.name for field in fields(import_vllm("vllm.engine.arg_utils").EngineArgs)]
    for key in given:
        if key not in known:
            raise ConfigError(
                f"engine.vllm.{key} is no engine argument of vLLM {vllm_version()}."
                f" {choices_hint(key, sorted(set(known) - _OURS.keys()))}"
            )
