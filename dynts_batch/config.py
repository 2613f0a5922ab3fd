"""The configuration of one run: frozen dataclasses.

Owns names, types, defaults and what each key means; config_rules.py has the rules between them, config_file.py reads them from
YAML. Knows nothing about which policies or models exist: the keys of `policy` are checked by the policy's own class, and
those that are its alone travel in `policy.options`.

Units are in the names: `_s` seconds, `_gib` GiB (2**30 bytes), `_usd` US dollars.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class ModelConfig:
    """Which model runs, and on what."""

    name: str = "embedded"
    """"embedded", a local path, or a Hugging Face hub id. A path may be of a folder or of a GGUF file, whose weights are
    dequantised to `dtype` (pip install 'dynts-batch[gguf]')."""
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
    tokenizer: str | None = None
    """Folder or hub id of the tokenizer; null = the model's own, which a GGUF file holds too."""
    chat_template: str | None = None
    """Path of a Jinja file, or the template itself; null = the tokenizer's own."""
    chat_template_kwargs: dict[str, Any] | None = None
    """Variables of the chat template, such as enable_thinking: false or reasoning_effort: high. Lines of OpenAI files
    may bring their own, which come first."""
    chat_date: str | None = None
    """The day, as 2026-11-29, that a chat template writes where it asks for today's; null = the day on which the run
    began, so that a resume renders the same prompts."""
    trust_remote_code: bool = False
    """Run the Python code that a hub model brings along. It runs with all your rights."""


@dataclass(frozen=True)
class InputConfig:
    """Where the requests come from. Exactly one of the prompt and messages columns is named."""

    path: str | None = None
    """Required. "embedded" (the problems that come with the package), a file, a folder of files or of
    `datasets.save_to_disk`, or a pattern of files (data/*.jsonl.gz, ** for any depth); a local path or a URI (s3://,
    gs://, hf://, anything fsspec opens)."""
    format: Literal["auto", "parquet", "arrow", "jsonl", "csv", "openai"] = "auto"
    """jsonl: objects, one a line, or an array of them. csv: with a header. Both may be compressed (gz, zst, bz2, xz, lz4).
    openai: lines of OpenAI's batch API; ids and messages are theirs, no column is to be named."""
    id_column: str | None = None
    """Column with unique ids; null = a hash of the prompt and its position."""
    prompt_column: str | None = None
    prompt_template: str | None = None
    """Text around each prompt, put in place of {prompt}, before the chat template: "{prompt}\\n\\nReason step by step, and
    put your final answer within \\boxed{}." Every other brace stands for itself. On a command line, quote the value for
    YAML too."""
    system_prompt: str | None = None
    """Text of a system turn before each prompt, and before messages that begin with none of their own."""
    messages_column: str | None = None
    """Column with chats: lists of turns, each with role and content. A last turn of the assistant is continued, not
    closed: that is how an answer is begun, or <think> is forced."""
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
    max_thinking_tokens: int | None = None
    """After so many tokens of thinking the engine writes its end, and the model answers; null = no limit. 0 ends at
    once what the prompt has begun. Where the model does not think, nothing happens."""
    end_thinking_text: str = ""
    """Text that the engine writes before the end tag. Qwen3 was trained with "Considering the limited time by the user, I
    have to give the solution based on the thinking directly now.\n"."""
    loop_min_tokens: int = 64
    """A text that ends in loop_repeats equal blocks of at least so many tokens (at most 512) is a loop: thinking is
    ended, or else the row, with finish_reason "loop"."""
    loop_repeats: int = 0
    """How many equal blocks in a row make a loop; 4 spares tables and code. 0 = loops are paid for until max_new_tokens,
    as in runs of before this key, which resume."""
    logprobs: bool = False
    """Keep the log-probability of every token, under the distribution that it was drawn from (temperature, top_k, top_p
    and min_p applied; at temperature 0, the model's own)."""
    seed: int = 0


@dataclass(frozen=True)
class PolicyParameters:
    """What every policy can be told. `budget` is required by every policy but `full`."""

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
    """The prompt is never evicted."""
    quantize: bool | str = False
    """How keys and values are stored, the newest few tokens aside: false, as they are; true or nvfp4, in 4.5 bits a
    number; int4, in 5, with more precise keys; fp8, in 8.5."""

    def __post_init__(self) -> None:
        # One value for one format, or a run could not go on under the other name.
        if self.quantize is True:
            object.__setattr__(self, "quantize", "nvfp4")


@dataclass(frozen=True)
class PolicyName:
    name: str = "dynts"


@dataclass(frozen=True)
class PolicyConfig(PolicyParameters, PolicyName):  # the name comes first among the fields
    """Which KV tokens stay."""

    options: dict[str, Any] = field(default_factory=dict)
    """The policy's own parameters: every other key that stands under `policy`."""


@dataclass(frozen=True)
class EngineConfig:
    """What runs the model: this package's bounded arena, or vLLM with the full cache."""

    kind: Literal["arena", "vllm"] = "arena"
    """arena: every policy, one GPU. vllm: policy full; models larger than a GPU, latent and linear attention, LoRA,
    quantised checkpoints, speculative decoding."""
    vllm: dict[str, Any] = field(default_factory=dict)
    """vLLM's own engine arguments, by the names of its EngineArgs, for example {kv_cache_dtype: fp8}."""
    lora: str | None = None
    """Folder of a LoRA adapter that the whole run uses; engine.kind=vllm only."""


@dataclass(frozen=True)
class MemoryConfig:
    """What bounds the KV arena; of `kv_gib` and `max_seqs` the smaller wins."""

    kv_gib: float | None = None
    """GiB of keys and values that one worker holds, on all of its GPUs together."""
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
    shown by `dynts-batch report`); some ten bytes a token."""
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
    text: Literal["answer", "completion"] = "answer"
    """What is read: what follows the end of thinking, or, where thinking never ended, the last box in it too, as the
    field's harnesses do. The report says how many rows differ."""
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
    engine: EngineConfig = field(default_factory=EngineConfig)
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    run: RunConfig = field(default_factory=RunConfig)
    workers: WorkersConfig = field(default_factory=WorkersConfig)
    grading: GradingConfig = field(default_factory=GradingConfig)
    cost: CostConfig = field(default_factory=CostConfig)
