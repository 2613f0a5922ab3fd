"""The configuration of one run: frozen dataclasses.

This file has the names, types, defaults and meanings of all keys. config_rules.py has the rules
between them, and config_file.py reads them from YAML. Policies check the keys of `policy`
themselves; the keys that only one policy has travel in `policy.options`.

Units are in the names: `_s` seconds, `_gib` GiB (2**30 bytes), `_usd` US dollars.
`dynts-batch config --keys` makes a page of the docstrings below.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self


@dataclass(frozen=True)
class ModelConfig:
    """Which model runs, and on what."""

    name: str = "embedded"
    """`embedded`, a folder, a GGUF file, or a Hugging Face hub id. The weights of a GGUF file are
    dequantised to `dtype` (`pip install 'dynts-batch[gguf]'`)."""
    revision: str | None = None
    """Branch, tag or commit of a hub model. A branch is pinned to its commit when a run begins."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of weights, keys and values. `auto`: the checkpoint's on a GPU, float32 on a CPU."""
    weights: Literal["int8"] | None = None
    """`int8`: linear layers multiply in 8 bits, with a scale for each channel and each token. It
    is faster and gives other rows. It needs AVX2 and gcc, or AVX-512. null = `dtype`."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto`: a GPU if the worker has one."""
    predictor: str | None = None
    """Path of the importance predictor. null = the embedded model's."""
    thoughts: str | None = None
    """Path of the file that tells thoughts apart, for `thinkv`. null = the embedded model's."""
    think_tags: list[str] | None = None
    """The two texts between which the model thinks. What stands after the second is its answer.
    null = as the chat template says: `["<think>", "</think>"]`, Magistral's
    `["[THINK]", "[/THINK]"]`, or the channels of gpt-oss."""
    tokenizer: str | None = None
    """Folder or hub id of the tokenizer. null = the model's own."""
    chat_template: str | None = None
    """Path of a Jinja file, or the template itself. null = the tokenizer's own."""
    chat_template_kwargs: dict[str, Any] | None = None
    """Variables of the chat template, such as `enable_thinking: false` or
    `reasoning_effort: high`. A line of an OpenAI file may bring its own, which win."""
    chat_date: str | None = None
    """The day, such as 2026-11-29, that a chat template writes if it asks for today's. null = the
    day on which the run began, so that a resume renders the same prompts."""
    trust_remote_code: bool = False
    """Run the Python code that a hub model brings along. It runs with all your rights."""


@dataclass(frozen=True)
class InputConfig:
    """Where the requests come from. Name either the prompt column or the messages column."""

    path: str | None = None
    """Required. A file, a folder of files or of `datasets.save_to_disk`, or a pattern such as
    `data/*.jsonl.gz` (`**` for any depth); `embedded` is the problems that come with the package.
    A local path or a URI (`s3://`, `gs://`, `hf://`, anything that fsspec opens)."""
    format: Literal["auto", "parquet", "arrow", "jsonl", "csv", "openai"] = "auto"
    """`jsonl`: objects, one a line, or an array of them. `csv`: with a header. Both may be
    compressed (gz, zst, bz2, xz, lz4). `openai`: lines of OpenAI's batch API, which name ids and
    messages themselves."""
    id_column: str | None = None
    """Column with unique ids. null = a hash of the prompt and its position."""
    prompt_column: str | None = None
    """Column with prompts: text."""
    prompt_template: str | None = None
    """Text around each prompt, which takes the place of `{prompt}`; for example
    `"{prompt}\\n\\nReason step by step, and put your final answer within \\boxed{}."` Other braces
    stand for themselves. On a command line, quote the value for YAML too."""
    system_prompt: str | None = None
    """Text of a system turn before each prompt, and before messages that do not begin with one."""
    messages_column: str | None = None
    """Column with chats: lists of turns, each with role and content. A last turn of the assistant
    is continued, not closed. This is how to begin an answer, or to force `<think>`."""
    reference_column: str | None = None
    """Column with the right answer. null = the rows are not graded."""
    limit: int | None = None
    """Use the first rows only. At least 1."""


@dataclass(frozen=True)
class SamplingConfig:
    """How tokens are drawn, in Hugging Face's words."""

    num_samples: int = 1
    """Completions of each prompt. At least 1, and exactly 1 at temperature 0."""
    temperature: float = 0.6
    """0 is greedy. At least 0."""
    top_p: float = 0.95
    """Draw from the most probable tokens that together have this probability. In (0, 1]."""
    top_k: int = 20
    """Draw from so many of the most probable tokens. 0 = off."""
    min_p: float = 0.0
    """Draw from tokens with at least this share of the highest probability. In [0, 1]."""
    max_new_tokens: int = 16384
    """Most tokens of a completion, thinking and answer together. At least 1."""
    max_thinking_tokens: int | None = None
    """After so many tokens of thinking the engine writes its end, and the model answers. Below
    `max_new_tokens`; null = no limit; 0 ends at once. A model that does not think is left alone."""
    end_thinking_text: str = ""
    """What the engine writes then; the end tag follows, unless it is in there. For Qwen3:
    "Considering the limited time by the user, I have to give the solution based on the thinking
    directly now.\\n"."""
    loop_min_tokens: int = 64
    """Shortest block of a loop, in tokens. Blocks longer than 512 tokens are not looked for."""
    loop_repeats: int = 0
    """How many equal blocks in a row make a loop, at least 2; 4 spares tables and code; 0 = off. A
    loop ends the thinking, or else the row, with finish_reason `loop`; vLLM always ends the row."""
    logprobs: bool = False
    """Keep the log-probability of every token, under the distribution that it was drawn from: after
    temperature, top_k, top_p and min_p. At temperature 0 it is the model's own."""
    stop_when: Literal["agreed", "right"] | None = None
    """When a question gets no more samples; `num_samples` are the most. agreed: the vote among its
    samples is decided. right: a sample is graded right, which is how training sets are made; a
    question without a reference gets all. A sample that is not run is a row with finish_reason
    `skipped`. null = all are run."""
    stop_rule: Literal["posterior", "evidence"] = "posterior"
    """How a vote is decided. posterior: Adaptive-Consistency's rule, by which 4 equal votes decide;
    its confidence is no error rate. evidence: an e-process, by which 7 equal votes decide. It names
    another answer than the model's most frequent one in at most 1 - `stop_confidence` of all
    questions."""
    stop_confidence: float = 0.95
    """In [0.5, 1)."""
    stop_window: int = 1
    """Samples of a question that are begun together, if they may be needed. A larger window ends a
    hard question sooner, and runs a few samples more. At least 1."""
    seed: int = 0
    """With the request's id, the sample's index and the position it fixes every draw. In
    [0, 2**63)."""


@dataclass(frozen=True)
class PolicyParameters:
    """What every policy can be told. `budget` is required by every policy but `full`."""

    budget: int | None = None
    """Most tokens that a sequence stores, prompt included. Reaching it starts an eviction."""
    window_size: int = 128
    """Newest tokens, which are never evicted. Below `budget`."""
    keep_ratio: float | None = None
    """Share of the candidates that an eviction keeps: the DynTS paper's schedule. In (0, 1]."""
    interval: int | None = None
    """Tokens that an eviction evicts, so there is one every `interval` tokens. At least 1; it
    excludes `keep_ratio`. Both null: the policy's own schedule, a sixteenth of the budget."""
    protect_prompt: bool | None = None
    """The prompt is never evicted. null = the policy's choice: false for `expected`, else true."""
    quantize: bool | str = False
    """How keys and values are stored, apart from the newest few tokens. false: as they are. `true`
    or `nvfp4`: 4.5 bits a number. `int4`: 5 bits, with more precise keys. `fp8`: 8.5 bits. What a
    head's keys have in common is measured while loading, and `nvfp4` and `fp8` do not round it."""
    retry_budget: int | None = None
    """Rows run again with this budget, last of all, if their prompt did not fit, or if they lost
    tokens and ended at the token limit, in a loop or without an answer. A decided question's do
    not. They cost both; see column `first_attempt`. Above `budget`; a finished run may add it."""

    def __post_init__(self) -> None:
        # One value for one format, or a run could not go on under the other name.
        if self.quantize is True:
            object.__setattr__(self, "quantize", "nvfp4")


@dataclass(frozen=True)
class PolicyName:
    name: str = "dynts"
    """Which method chooses the tokens, or `module:Class` of a policy of your own."""


@dataclass(frozen=True)
class PolicyConfig(PolicyParameters, PolicyName):  # the name comes first among the fields
    """Which KV tokens stay."""

    options: dict[str, Any] = field(default_factory=dict)
    """The policy's own parameters: every other key that stands under `policy`."""

    @property
    def of_retries(self) -> Self | None:
        """The policy of second attempts; None if there are none."""
        budget = self.retry_budget
        return None if budget is None else replace(self, budget=budget, retry_budget=None)


@dataclass(frozen=True)
class EngineConfig:
    """What runs the model: this package's bounded arena, or vLLM with the full cache."""

    kind: Literal["arena", "vllm"] = "arena"
    """`arena`: every policy, one GPU. `vllm`: policy `full`; models larger than a GPU, latent and
    linear attention, LoRA, quantised checkpoints, speculative decoding."""
    vllm: dict[str, Any] = field(default_factory=dict)
    """vLLM's own engine arguments, by the names of its `EngineArgs`, for example
    `{kv_cache_dtype: fp8}`. Needs `kind: vllm`."""
    lora: str | None = None
    """Folder of a LoRA adapter that the whole run uses. Needs `kind: vllm`."""


@dataclass(frozen=True)
class MemoryConfig:
    """What bounds the KV arena. Of `kv_gib` and `max_seqs` the smaller wins."""

    kv_gib: float | None = None
    """GiB of keys and values that one worker holds, on all of its GPUs together. Above 0; null =
    what is free on the GPU. On a CPU set this or `max_seqs`."""
    max_seqs: int | None = None
    """Most sequences that one worker decodes together. At least 1; null = as many as fit."""
    max_prompt_tokens: int = 2048
    """So long may a prompt be that the policy may evict from, even above `policy.budget`, which a
    protected one must fit. `full` reserves this and `sampling.max_new_tokens`. At least 1."""


@dataclass(frozen=True)
class RunConfig:
    """Where results go, and how the work is cut and retried."""

    dir: str | None = None
    """Required. The run directory, a path or a URI as `input.path`. The same one again resumes."""
    shard_rows: int = 64
    """Units (request x sample) of a shard, which is what a worker takes and what a file holds. At
    least 1. A multiple of `sampling.num_samples` with `sampling.stop_when`."""
    checkpoint_s: float = 60.0
    """Finished rows of an unfinished shard are saved this often. Above 0."""
    max_attempts: int = 3
    """A request that was in flight at so many worker deaths becomes an error row; if there are
    several nodes, the deaths must have been on two. A node on which so many workers die in a row
    is avoided for a while. At least 1."""
    retry_failed: bool = False
    """Run the rows with finish_reason `error` of a finished run again."""
    trace_rows: int = 0
    """For so many rows, spread evenly over the run, record which tokens were evicted when (column
    token_trace, shown by `dynts-batch report`). It takes some 15 bytes a token."""
    stall_s: float = 900.0
    """A worker that does nothing for so long counts as hung, and is replaced. Above 0."""
    max_cost_usd: float | None = None
    """Stop once the run has cost this much. Spending counts all the time a worker holds its device,
    loading and idling included, over all starts. Above 0; needs a price."""
    max_hours: float | None = None
    """Stop this start of the run after so many hours. Above 0."""


@dataclass(frozen=True)
class WorkersConfig:
    """How many Ray actors, and what each asks Ray for."""

    min: int = 1
    """Fewest workers. At least 1."""
    max: int = 1
    """Most workers; nodes and work decide how many there are. At least `min`."""
    num_gpus: float | None = None
    """GPUs of a worker. null = one if `model.device` is cuda, or auto on a cluster with GPUs, else
    none. A part of one, such as 0.5: two workers share a GPU and its memory. 2 and more need
    `engine.kind=vllm`."""
    num_cpus: float | None = None
    """CPUs, and threads, of a worker. At least 0. null = 1; here without a GPU: cores / `max`."""


@dataclass(frozen=True)
class GradingConfig:
    """How an answer is compared with its reference."""

    kind: str = "math"
    """`math` (the same number, text or mathematics), `exact` (the same number or text), `none`, or
    the `module:function` of your own: function(answer, reference) -> True, False or None."""
    benchmark: Literal["aime", "amc", "math", "gaokao", "gpqa", "gsm8k"] | None = None
    """The form of its answers. null = as the reference looks."""
    text: Literal["answer", "completion"] = "answer"
    """What is read. `answer`: what follows the end of thinking. `completion`: if thinking never
    ended, the last box in it too, as the field's harnesses do. The report says how many rows
    differ."""
    timeout_s: float = 5.0
    """CPU seconds for one answer (seconds for a function of yours); longer is wrong. Above 0."""


@dataclass(frozen=True)
class CostConfig:
    """Prices. A cost column whose price is not set is null."""

    usd_per_gpu_hour: float | None = None
    """Price of a GPU for an hour; of a worker's CPUs if it has no GPU. At least 0."""
    usd_per_kwh: float | None = None
    """Price of the energy that was measured. At least 0."""


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
