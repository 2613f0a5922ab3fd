"""The rules that types cannot state: ranges, and keys that need or exclude each other."""

from __future__ import annotations

import math
import re
from dataclasses import asdict
from datetime import date
from urllib.parse import urlsplit

from dynts_batch.config import (
    Config,
    CostConfig,
    EngineConfig,
    GradingConfig,
    InputConfig,
    MemoryConfig,
    RunConfig,
    SamplingConfig,
    WorkersConfig,
)
from dynts_batch.errors import ConfigError

_SECRET = re.compile(r"(key|token|secret|password|sig|signature|credential)=", re.IGNORECASE)
_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def validate(config: Config) -> None:
    """Check the rules that types cannot state. Configs built in Python need it too.

    Raises:
        ConfigError: the first broken rule.
    """
    _check_think_tags(config.model.think_tags)
    _check_chat_date(config.model.chat_date)
    _check_engine(config.engine)
    _check_weights(config)
    _check_input(config.input)
    _check_sampling(config.sampling)
    _check_stopping(config)
    _check_resources(config.memory, config.workers, config.cost)
    _check_run(config.run, config.grading)
    _check_limits(config.run, config.cost)


def _check_think_tags(tags: list[str] | None) -> None:
    if tags is None:
        return
    if len(set(tags)) != 2 or len(tags) != 2 or any(not tag or tag != tag.strip() for tag in tags):
        raise ConfigError(
            "model.think_tags must be two different texts, without white space at their ends, that"
            f" begin and end the thinking, such as [<think>, </think>], got {tags}"
        )


def _check_engine(engine: EngineConfig) -> None:
    for key in ("vllm", "lora"):
        if engine.kind == "arena" and getattr(engine, key):
            raise ConfigError(
                f"engine.{key} needs engine.kind=vllm, got {getattr(engine, key)!r} with"
                " engine.kind=arena"
            )


def _check_weights(config: Config) -> None:
    if config.model.weights is None:
        return
    if config.engine.kind == "vllm":
        raise ConfigError(
            "model.weights must be null when engine.kind is vllm, whose own formats are"
            f" engine.vllm.quantization, got {config.model.weights}"
        )
    if config.model.dtype == "float16":
        raise ConfigError(
            f"model.weights must be null when model.dtype is float16, got {config.model.weights};"
            " choices with it: float32, bfloat16"
        )
    if config.model.device == "cuda":
        raise ConfigError(
            "model.weights must be null when model.device is cuda, got"
            f" {config.model.weights}, which is for CPUs"
        )


def _check_chat_date(day: str | None) -> None:
    if day is None:
        return
    try:
        date.fromisoformat(day)
    except ValueError:
        raise ConfigError(
            f"model.chat_date must be a day such as 2026-11-29, got {day!r}"
        ) from None


def _check_input(config: InputConfig) -> None:
    if not config.path:
        raise ConfigError("input.path is required: the data set to read, got nothing")
    _no_credentials("input.path", config.path)
    if config.limit is not None:
        _at_least("input.limit", config.limit, 1)
    _check_prompt_template(config)
    if config.format == "openai":
        _check_openai(config)
        return
    if not config.prompt_column and not config.messages_column:
        raise ConfigError(
            "input.prompt_column or input.messages_column is required: name the column that holds"
            " the prompt (text) or the chat messages (list of role and content), got neither"
        )
    if config.prompt_column and config.messages_column:
        raise ConfigError(
            "input.prompt_column and input.messages_column exclude each other: name one of them,"
            f" got {config.prompt_column!r} and {config.messages_column!r}"
        )


def _check_prompt_template(config: InputConfig) -> None:
    template = config.prompt_template
    if template is None:
        return
    if not config.prompt_column:
        raise ConfigError(
            "input.prompt_template needs input.prompt_column, since messages are rendered as they"
            f" are, got {template!r} without it"
        )
    if "{prompt}" not in template:
        raise ConfigError(
            f"input.prompt_template must hold {{prompt}}, where the prompt goes, got {template!r}"
        )


def _check_openai(config: InputConfig) -> None:
    for key in ("id_column", "prompt_column", "messages_column"):
        column = getattr(config, key)
        if column is not None:
            raise ConfigError(
                f"input.{key} must be null where input.format is openai, since the format says"
                f" where ids and messages are, got {column!r}"
            )


def _check_sampling(config: SamplingConfig) -> None:
    _at_least("sampling.num_samples", config.num_samples, 1)
    _at_least("sampling.temperature", config.temperature, 0)
    _at_least("sampling.top_k", config.top_k, 0)
    _at_least("sampling.max_new_tokens", config.max_new_tokens, 1)
    if config.max_thinking_tokens is not None:
        _at_least("sampling.max_thinking_tokens", config.max_thinking_tokens, 0)
        if config.max_thinking_tokens >= config.max_new_tokens:
            raise ConfigError(
                "sampling.max_thinking_tokens must be smaller than sampling.max_new_tokens"
                f" ({config.max_new_tokens}), which holds the answer too, got"
                f" {config.max_thinking_tokens}"
            )
    _at_least("sampling.loop_min_tokens", config.loop_min_tokens, 1)
    _at_least("sampling.loop_repeats", config.loop_repeats, 0)
    if config.loop_repeats == 1:
        raise ConfigError("sampling.loop_repeats must be 0 (off) or at least 2, got 1")
    if not 0 < config.top_p <= 1:
        raise ConfigError(f"sampling.top_p must be in (0, 1], got {config.top_p}")
    if not 0 <= config.min_p <= 1:
        raise ConfigError(f"sampling.min_p must be in [0, 1], got {config.min_p}")
    if not 0 <= config.seed < 2**63:
        raise ConfigError(f"sampling.seed must be in [0, 2**63), got {config.seed}")
    if config.temperature == 0 and config.num_samples > 1:
        raise ConfigError(
            "sampling.num_samples must be 1 when sampling.temperature is 0 (greedy samples are all"
            f" the same), got {config.num_samples}"
        )


def _check_stopping(config: Config) -> None:
    sampling = config.sampling
    if not 0.5 <= sampling.stop_confidence < 1:
        raise ConfigError(
            f"sampling.stop_confidence must be in [0.5, 1), got {sampling.stop_confidence}"
        )
    _at_least("sampling.stop_window", sampling.stop_window, 1)
    if sampling.stop_when is None:
        return
    key = f"sampling.stop_when={sampling.stop_when}"
    if sampling.num_samples == 1:
        more = "" if sampling.temperature else ", and sampling.temperature above 0"
        raise ConfigError(f"{key} needs sampling.num_samples, the most, above 1{more}, got 1")
    if config.run.shard_rows % sampling.num_samples:
        raise ConfigError(
            f"run.shard_rows must be a multiple of sampling.num_samples ({sampling.num_samples})"
            f" for {key}, since the samples of a question wait for each other,"
            f" got {config.run.shard_rows}"
        )
    if sampling.stop_when == "right":
        if config.input.reference_column is None:
            raise ConfigError(f"{key} needs input.reference_column, the right answers, got nothing")
        if config.grading.kind == "none":
            raise ConfigError(f"{key} needs answers that are graded, got grading.kind=none")


def _check_resources(memory: MemoryConfig, workers: WorkersConfig, cost: CostConfig) -> None:
    if memory.kv_gib is not None:
        _above_zero("memory.kv_gib", memory.kv_gib)
    if memory.max_seqs is not None:
        _at_least("memory.max_seqs", memory.max_seqs, 1)
    _at_least("memory.max_prompt_tokens", memory.max_prompt_tokens, 1)
    _at_least("workers.min", workers.min, 1)
    if workers.max < workers.min:
        raise ConfigError(
            f"workers.max must be at least workers.min ({workers.min}), got {workers.max}"
        )
    for key, number in (("num_cpus", workers.num_cpus), ("num_gpus", workers.num_gpus)):
        if number is not None:
            _at_least(f"workers.{key}", number, 0)
    for key, usd in asdict(cost).items():
        if usd is not None:
            _at_least(f"cost.{key}", usd, 0)


def _check_run(run: RunConfig, grading: GradingConfig) -> None:
    if not run.dir:
        raise ConfigError("run.dir is required: the folder that receives the rows, got nothing")
    _no_credentials("run.dir", run.dir)
    _at_least("run.shard_rows", run.shard_rows, 1)
    _above_zero("run.checkpoint_s", run.checkpoint_s)
    _at_least("run.max_attempts", run.max_attempts, 1)
    _at_least("run.trace_rows", run.trace_rows, 0)
    _above_zero("run.stall_s", run.stall_s)
    _above_zero("grading.timeout_s", grading.timeout_s)
    if grading.kind not in ("math", "exact", "none") and not _FUNCTION.fullmatch(grading.kind):
        raise ConfigError(
            "grading.kind must be one of math, exact, none, or module:function of a grader of your"
            f" own, got {grading.kind!r}"
        )


def _check_limits(run: RunConfig, cost: CostConfig) -> None:
    if run.max_hours is not None:
        _above_zero("run.max_hours", run.max_hours)
    if run.max_cost_usd is None:
        return
    _above_zero("run.max_cost_usd", run.max_cost_usd)
    if not cost.usd_per_gpu_hour and not cost.usd_per_kwh:
        raise ConfigError(
            "run.max_cost_usd needs a price: set cost.usd_per_gpu_hour or cost.usd_per_kwh,"
            " got neither"
        )


def _no_credentials(key: str, uri: str) -> None:
    """Refuse credentials: the configuration is stored and printed. The message holds no secret."""
    parts = urlsplit(uri) if "://" in uri else None
    if parts is not None and ("@" in parts.netloc or _SECRET.search(parts.query)):
        raise ConfigError(
            f"{key} must not hold credentials, since the configuration is stored with the rows:"
            f" give them in the environment, got them in a URI of {parts.scheme}://"
        )


def _at_least(key: str, value: float, low: int) -> None:
    if not (math.isfinite(value) and value >= low):
        raise ConfigError(f"{key} must be at least {low}, got {value}")


def _above_zero(key: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise ConfigError(f"{key} must be above 0, got {value}")
