"""The configuration of one run: frozen dataclasses, read once from YAML and `key=value` overrides.

Owns names, types, defaults and the rules between keys; the only file that imports omegaconf. Knows
nothing about which policies or models exist: a policy's own parameters travel in `policy.options`
and are checked against the policy's class by the registry in kvcache/policies.

Units are in the names: `_s` seconds, `_gib` GiB (2**30 bytes), `_usd` US dollars.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from types import NoneType, UnionType
from typing import IO, Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

from omegaconf import OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]  # comes with omegaconf

from dynts_batch.errors import ConfigError, choices_hint

T = TypeVar("T")


@dataclass(frozen=True)
class ModelConfig:
    """Which model runs, and on what."""

    name: str = "embedded"
    """"embedded", a local path, or a Hugging Face hub id."""
    revision: str | None = None
    """Branch, tag or commit of a hub model."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    predictor: str | None = None
    """Path of the importance predictor; null = the one embedded beside the model."""


@dataclass(frozen=True)
class InputConfig:
    """Where the requests come from. Exactly one of the prompt and messages columns is named."""

    path: str | None = None
    """Required. "embedded" (the problems that come with the package), a file, or a folder of Parquet
    files or of `datasets.save_to_disk`."""
    format: Literal["auto", "parquet", "arrow", "jsonl", "csv"] = "auto"
    id_column: str | None = None
    """Column with unique ids; null = a hash of the prompt and its position."""
    prompt_column: str | None = None
    messages_column: str | None = None
    reference_column: str | None = None
    """Column with the right answer; null = the rows are not graded."""
    limit: int | None = None
    """Use the first rows only."""


@dataclass(frozen=True)
class SamplingConfig:
    """How tokens are drawn, in Hugging Face's words. Temperature 0 is greedy."""

    num_samples: int = 1
    temperature: float = 0.6
    top_p: float = 0.95
    top_k: int = 20
    """0 = off."""
    min_p: float = 0.0
    max_new_tokens: int = 16384
    seed: int = 0


@dataclass(frozen=True)
class PolicyConfig:
    """Which KV tokens stay. `budget` is required by every policy but `full`."""

    name: str = "dynts"
    budget: int | None = None
    """Cap on stored tokens per sequence, prompt included; reaching it triggers an eviction."""
    window_size: int = 128
    """Newest tokens, never evicted."""
    keep_ratio: float = 0.3
    """Share of the candidates kept by an eviction."""
    protect_prompt: bool = True
    options: dict[str, Any] = field(default_factory=dict)
    """The policy's own parameters: every other key that stands under `policy`."""


@dataclass(frozen=True)
class MemoryConfig:
    """What bounds the KV arena; of `kv_gib` and `max_seqs` the smaller wins."""

    kv_gib: float | None = None
    max_seqs: int | None = None
    """Sequences decoded together by one worker."""
    max_prompt_tokens: int = 2048
    """Room for the prompt where no budget caps a sequence (policy `full`): each one then reserves
    max_prompt_tokens + sampling.max_new_tokens."""


@dataclass(frozen=True)
class RunConfig:
    """Where results go, and how the work is cut and retried."""

    dir: str | None = None
    """Required. The run directory; the same one again resumes."""
    shard_rows: int = 64
    """Units (request x sample) per shard: per retry and per output file."""
    checkpoint_s: float = 60.0
    """Finished rows of an unfinished shard are saved this often."""
    max_attempts: int = 3
    """A request in flight at this many worker deaths becomes an error row."""
    retry_failed: bool = False
    """Run the rows with finish_reason "error" of a finished run again."""
    trace_rows: int = 0
    """Record for this many rows, spread evenly over the run, which tokens were evicted when (column token_trace,
    shown by jobs/report.py); some ten bytes a token."""


@dataclass(frozen=True)
class WorkersConfig:
    """How many Ray actors, and what each asks Ray for."""

    min: int = 1
    max: int = 1
    num_gpus: float | None = None
    """Per worker; null = one if the cluster has GPUs, else none."""
    num_cpus: float = 1


@dataclass(frozen=True)
class GradingConfig:
    """How an answer is compared with its reference."""

    kind: Literal["math", "exact", "none"] = "math"
    timeout_s: float = 5.0
    """Per answer; a comparison that takes longer counts as wrong."""


@dataclass(frozen=True)
class CostConfig:
    """Prices; without one the cost columns that need it are null."""

    usd_per_gpu_hour: float | None = None
    usd_per_kwh: float | None = None


@dataclass(frozen=True)
class Config:
    """One complete run. `load_config` is the checked way to get one."""

    model: ModelConfig = field(default_factory=ModelConfig)
    input: InputConfig = field(default_factory=InputConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    run: RunConfig = field(default_factory=RunConfig)
    workers: WorkersConfig = field(default_factory=WorkersConfig)
    grading: GradingConfig = field(default_factory=GradingConfig)
    cost: CostConfig = field(default_factory=CostConfig)


def load_config(path: str | IO[str], overrides: Sequence[str] = ()) -> Config:
    """Read the YAML file at `path` (or an open one), apply `key=value` overrides in order, and check every rule.

    Raises:
        ConfigError: the file cannot be read, or a key is unknown, mistyped or breaks a rule.
    """
    groups = _gather_policy_options(_read(path, overrides))
    _check_keys(groups)
    try:
        # Structured nodes of a frozen dataclass are read-only; a merge gives a new tree.
        merged = OmegaConf.merge(OmegaConf.structured(Config), OmegaConf.create(_escape(groups)))
        config = cast(Config, OmegaConf.to_object(merged))
    except OmegaConfBaseException as error:
        raise _type_error(groups, error) from None
    validate(config)
    return config


def to_yaml(config: Config) -> str:
    """`config` as YAML that `load_config` reads back to an equal object."""
    groups = asdict(config)
    groups["policy"] |= groups["policy"].pop("options")
    return OmegaConf.to_yaml(OmegaConf.create(_escape(groups)))


def load_settings(settings_class: type[T], overrides: Sequence[str]) -> T:
    """A flat settings dataclass with `key=value` overrides, for the jobs that need no run.

    Raises:
        ConfigError: a key is unknown or mistyped.
    """
    schema = OmegaConf.structured(settings_class)
    try:
        merged = OmegaConf.merge(schema, OmegaConf.from_dotlist(list(overrides)))
        return cast(T, OmegaConf.to_object(merged))
    except ConfigKeyError as error:
        raise ConfigError(
            f"unknown key {error.full_key}. {choices_hint(str(error.full_key), list(schema))}"
        ) from None
    except (OmegaConfBaseException, TypeError, YAMLError) as error:
        raise ConfigError(f"cannot read the settings: {_first_line(error)}") from None


def validate(config: Config) -> None:
    """Check the rules that types cannot state; for configs that are built in Python.

    Raises:
        ConfigError: the first broken rule.
    """
    _check_input(config.input)
    _check_sampling(config.sampling)
    _check_policy(config.policy)
    _check_resources(config.memory, config.workers, config.cost)
    _check_run(config.run, config.grading)


# ---- rules -------------------------------------------------------------------------------------


def _check_input(config: InputConfig) -> None:
    if not config.path:
        raise ConfigError("input.path is required: the data set to read, got nothing")
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
    if config.limit is not None:
        _at_least("input.limit", config.limit, 1)


def _check_sampling(config: SamplingConfig) -> None:
    _at_least("sampling.num_samples", config.num_samples, 1)
    _at_least("sampling.temperature", config.temperature, 0)
    _at_least("sampling.top_k", config.top_k, 0)
    _at_least("sampling.max_new_tokens", config.max_new_tokens, 1)
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


def _check_policy(config: PolicyConfig) -> None:
    _at_least("policy.window_size", config.window_size, 0)
    if not 0 < config.keep_ratio <= 1:
        raise ConfigError(f"policy.keep_ratio must be in (0, 1], got {config.keep_ratio}")
    if config.budget is not None:
        _at_least("policy.budget", config.budget, 1)
    if config.name == "full":  # never evicts: it may go without a budget, and has no window
        return
    if config.budget is None:
        raise ConfigError(
            "policy.budget is required: the cap on stored tokens per sequence; only policy 'full'"
            f" goes without, got policy {config.name!r}"
        )
    if config.window_size >= config.budget:
        raise ConfigError(
            f"policy.window_size must be smaller than policy.budget ({config.budget}),"
            f" got {config.window_size}"
        )


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
    _at_least("workers.num_cpus", workers.num_cpus, 0)
    if workers.num_gpus is not None:
        _at_least("workers.num_gpus", workers.num_gpus, 0)
    for key, usd in asdict(cost).items():
        if usd is not None:
            _at_least(f"cost.{key}", usd, 0)


def _check_run(run: RunConfig, grading: GradingConfig) -> None:
    if not run.dir:
        raise ConfigError("run.dir is required: the folder that receives the rows, got nothing")
    _at_least("run.shard_rows", run.shard_rows, 1)
    _above_zero("run.checkpoint_s", run.checkpoint_s)
    _at_least("run.max_attempts", run.max_attempts, 1)
    _at_least("run.trace_rows", run.trace_rows, 0)
    _above_zero("grading.timeout_s", grading.timeout_s)


def _at_least(key: str, value: float, low: int) -> None:
    if not (math.isfinite(value) and value >= low):
        raise ConfigError(f"{key} must be at least {low}, got {value}")


def _above_zero(key: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise ConfigError(f"{key} must be above 0, got {value}")


# ---- reading -----------------------------------------------------------------------------------


def _read(path: str | IO[str], overrides: Sequence[str]) -> dict[str, Any]:
    """YAML and overrides merged into plain groups, interpolations resolved."""
    for override in overrides:
        if not override.partition("=")[1] or not override.partition("=")[0].strip():
            raise ConfigError(f"an override must be key=value, got {override!r}")
    try:
        tree = OmegaConf.load(path)
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        raise ConfigError(f"cannot read the config file {path!r}: {error}") from None
    try:
        merged = OmegaConf.merge(tree, OmegaConf.from_dotlist(list(overrides)))
        groups = OmegaConf.to_container(merged, resolve=True)
    except (OmegaConfBaseException, TypeError, YAMLError) as error:
        raise ConfigError(f"cannot read the config: {_first_line(error)}") from None
    if not isinstance(groups, dict):
        raise ConfigError(f"{path!r} must hold a mapping of groups, got {type(groups).__name__}")
    # `memory:` with nothing below it is an empty group, as YAML users expect.
    return {str(group): {} if keys is None else keys for group, keys in groups.items()}


def _gather_policy_options(groups: dict[str, Any]) -> dict[str, Any]:
    """Move the keys of `policy` that are not common to all policies into `policy.options`."""
    policy = groups.get("policy", {})
    if not isinstance(policy, dict):
        return groups
    common = {f.name for f in fields(PolicyConfig)} - {"options"}
    options = {str(key): value for key, value in policy.items() if key not in common}
    known = {key: value for key, value in policy.items() if key in common}
    return groups | {"policy": known | {"options": options}}


def _check_keys(groups: Mapping[str, Any]) -> None:
    hints = get_type_hints(Config)
    for group, keys in groups.items():
        if group not in hints:
            raise ConfigError(f"unknown config key {group}. {choices_hint(group, list(hints))}")
        choices = [f.name for f in fields(hints[group])]
        if not isinstance(keys, Mapping):
            raise ConfigError(f"{group} must hold keys ({', '.join(choices)}), got {keys!r}")
        for key in keys:
            if key not in choices:
                hint = choices_hint(str(key), choices)
                raise ConfigError(f"unknown config key {group}.{key}. {hint}")


def _type_error(groups: Mapping[str, Any], error: OmegaConfBaseException) -> ConfigError:
    """OmegaConf's conversion error in this package's words."""
    group, _, key = (error.full_key or "").partition(".")
    if not key or key not in groups.get(group, {}):
        return ConfigError(f"cannot read the config: {_first_line(error)}")
    hint = get_type_hints(get_type_hints(Config)[group])[key]
    return ConfigError(f"{group}.{key} must be {_describe(hint)}, got {groups[group][key]!r}")


def _describe(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return f"one of {', '.join(get_args(hint))}"
    if get_origin(hint) is UnionType:
        return " or ".join(_describe(arg) for arg in get_args(hint))
    words = {int: "an integer", float: "a number", str: "text", bool: "true or false"}
    return (words | {NoneType: "null"})[hint]


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _escape(value: Any) -> Any:
    """Text that looks like an interpolation was already resolved: keep it from being one again."""
    if isinstance(value, dict):
        return {key: _escape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_escape(item) for item in value]
    if not isinstance(value, str):
        return value
    # OmegaConf reads \${ as a plain ${, and then halves the backslashes that stand before it.
    return re.sub(r"(\\*)\$\{", lambda match: match[1] * 2 + r"\${", value)
