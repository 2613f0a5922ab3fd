"""The configuration of one run: frozen dataclasses and the rules between their keys.

Owns names, types, defaults and rules; config_file.py reads them from YAML. Knows nothing about which
policies or models exist: the keys of `policy` are checked by the policy's own class, and those that
are its alone travel in `policy.options`.

Units are in the names: `_s` seconds, `_gib` GiB (2**30 bytes), `_usd` US dollars.
"""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

from dynts_batch.errors import ConfigError

_SECRET = re.compile(r"(key|token|secret|password|sig|signature|credential)=", re.IGNORECASE)
_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


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
    thoughts: str | None = None
    """Path of what tells the model's thoughts apart; null = the one embedded beside the model."""
    think_tags: list[str] | None = None
    """Texts between which the model thinks: what stands after the second is its answer. null = as its chat template says:
    [<think>, </think>], Magistral's ["[THINK]", "[/THINK]"], or the channels of gpt-oss, which are
    ["<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"]."""
    trust_remote_code: bool = False
    """Run the Python code that a hub model brings along. It runs with all your rights."""


@dataclass(frozen=True)
class InputConfig:
    """Where the requests come from. Exactly one of the prompt and messages columns is named."""

    path: str | None = None
    """Required. "embedded" (the problems that come with the package), a file, or a folder of Parquet
    files or of `datasets.save_to_disk`; a local path or a URI (s3://, gs://, anything fsspec opens)."""
    format: Literal["auto", "parquet", "arrow", "jsonl", "csv", "openai"] = "auto"
    """openai: lines of OpenAI's batch API; ids and messages are theirs, no column is to be named."""
    id_column: str | None = None
    """Column with unique ids; null = a hash of the prompt and its position."""
    prompt_column: str | None = None
    prompt_template: str | None = None
    """Text around each prompt, put in place of {prompt}, before the chat template: "{prompt}\\n\\nReason step by step, and
    put your final answer within \\boxed{}." Every other brace stands for itself. On a command line, quote the value for
    YAML too."""
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
    keep_ratio: float | None = None
    """Share of the candidates that an eviction keeps; the DynTS paper's schedule."""
    interval: int | None = None
    """Tokens that an eviction evicts, so that there is one every `interval` tokens; instead of keep_ratio. null, and
    keep_ratio null too: the policy's own."""
    protect_prompt: bool = True
    quantize: bool | str = False
    """How keys and values are stored, the newest few tokens aside: false, as they are; true or nvfp4, in 4.5 bits a
    number; int4, in 5, with more precise keys; fp8, in 8.5."""
    options: dict[str, Any] = field(default_factory=dict)
    """The policy's own parameters: every other key that stands under `policy`."""

    def __post_init__(self) -> None:
        # One value for one format, or a run could not go on under the other name.
        if self.quantize is True:
            object.__setattr__(self, "quantize", "nvfp4")


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
    """Required. The run directory, a path or a URI as input.path; the same one again resumes."""
    shard_rows: int = 64
    """Units (request x sample) per shard: per retry and per output file."""
    checkpoint_s: float = 60.0
    """Finished rows of an unfinished shard are saved this often."""
    max_attempts: int = 3
    """A request in flight at this many worker deaths, on more than one node where there are several, becomes an error
    row; a node on which this many workers die in a row is avoided for a while."""
    retry_failed: bool = False
    """Run the rows with finish_reason "error" of a finished run again."""
    trace_rows: int = 0
    """Record for this many rows, spread evenly over the run, which tokens were evicted when (column token_trace,
    shown by jobs/report.py); some ten bytes a token."""
    stall_s: float = 900.0
    """A worker that does nothing for so long is taken for hung, and replaced."""
    max_cost_usd: float | None = None
    """Stop once the time for which all starts of the run held their devices, loading and idling included, has cost
    this much."""
    max_hours: float | None = None
    """Stop this start of the run after so many hours."""


@dataclass(frozen=True)
class WorkersConfig:
    """How many Ray actors, and what each asks Ray for."""

    min: int = 1
    max: int = 1
    num_gpus: float | None = None
    """Per worker; null = one where model.device is cuda, or auto and the cluster has GPUs, else none.
    A part of one, as 0.5: two workers share a GPU, and each takes half of its memory at most."""
    num_cpus: float = 1


@dataclass(frozen=True)
class GradingConfig:
    """How an answer is compared with its reference."""

    kind: str = "math"
    """math (the same number, text or mathematics), exact (the same number or text), none, or the
    "module:function" of a grader of your own: function(answer, reference) -> True, False or None."""
    benchmark: Literal["aime", "amc", "math", "gaokao", "gpqa", "gsm8k"] | None = None
    """What its answers are; null = as the reference looks."""
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


def validate(config: Config) -> None:
    """Check the rules that types cannot state; for configs that are built in Python.

    Raises:
        ConfigError: the first broken rule.
    """
    _check_think_tags(config.model.think_tags)
    _check_input(config.input)
    _check_sampling(config.sampling)
    _check_resources(config.memory, config.workers, config.cost)
    _check_run(config.run, config.grading)
    _check_limits(config.run, config.cost)


# ---- rules -------------------------------------------------------------------------------------


def _check_think_tags(tags: list[str] | None) -> None:
    if tags is None:
        return
    if len(set(tags)) != 2 or len(tags) != 2 or any(not tag or tag != tag.strip() for tag in tags):
        raise ConfigError(
            "model.think_tags must be two different texts, without white space at their ends, that begin and"
            f" end the thinking, such as [<think>, </think>], got {tags}"
        )


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
            "input.prompt_template needs input.prompt_column, since messages are rendered as they are, got"
            f" {template!r} without it"
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
                f"input.{key} must be null where input.format is openai, since the format says where"
                f" ids and messages are, got {column!r}"
            )


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
    _no_credentials("run.dir", run.dir)
    _at_least("run.shard_rows", run.shard_rows, 1)
    _above_zero("run.checkpoint_s", run.checkpoint_s)
    _at_least("run.max_attempts", run.max_attempts, 1)
    _at_least("run.trace_rows", run.trace_rows, 0)
    _above_zero("run.stall_s", run.stall_s)
    _above_zero("grading.timeout_s", grading.timeout_s)
    if grading.kind not in ("math", "exact", "none") and not _FUNCTION.fullmatch(grading.kind):
        raise ConfigError(
            "grading.kind must be one of math, exact, none, or module:function of a grader of your own,"
            f" got {grading.kind!r}"
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
    """The configuration is stored and printed. The message must not repeat what is secret."""
    parts = urlsplit(uri) if "://" in uri else None
    if parts is not None and ("@" in parts.netloc or _SECRET.search(parts.query)):
        raise ConfigError(
            f"{key} must not hold credentials, since the configuration is stored with the rows: give"
            f" them in the environment, got them in a URI of {parts.scheme}://"
        )


def _at_least(key: str, value: float, low: int) -> None:
    if not (math.isfinite(value) and value >= low):
        raise ConfigError(f"{key} must be at least {low}, got {value}")


def _above_zero(key: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise ConfigError(f"{key} must be above 0, got {value}")
