"""The engines that are compared: ours with each policy, and what a user would run instead.

All run the same random-weight model on the same load. A contender is a function from a load to its
timed completions; making one loads its model.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from transformers import (
    AutoTokenizer,
    ContinuousBatchingConfig,
    GenerationConfig,
)

from dynts_batch.benchmarks.contenders.child_process import child_process
from dynts_batch.benchmarks.contenders.static_batches import generate_static_batches
from dynts_batch.benchmarks.stopwatch import Timed, timed
from dynts_batch.benchmarks.workload import Load, Workload
from dynts_batch.config import (
    Config,
    InputConfig,
    MemoryConfig,
    PolicyConfig,
    RunConfig,
    SamplingConfig,
)
from dynts_batch.config_file import override_config
from dynts_batch.engine.attention.steps import register_attention
from dynts_batch.engine.engine import Engine
from dynts_batch.engine.model.files import model_path
from dynts_batch.engine.model.fusing import fuse_layers
from dynts_batch.engine.model.int8.weight import Int8Weight
from dynts_batch.engine.model.loader import LoadedModel
from dynts_batch.engine.model.packing import PackedWeight, pack_linears
from dynts_batch.errors import ConfigError
from dynts_batch.kvcache.policies import POLICIES, make_policy
from dynts_batch.kvcache.policy import Policy
from dynts_batch.kvcache.predictor import ImportancePredictor
from dynts_batch.records import Completion, Request

Contender = Callable[[Load], Timed]
#: Engines of other environments that run a real model, and what stands before the model's name in
#: that of the folder beside it which they read.
FOLDERS = {
    "openvino": "ov-",
    "openvino+weights=int8": "ov-int8-",
    "openvino-evicting": "ov-",
    "openvino-evicting+weights=int8": "ov-int8-",
    "vllm": "",
    "vllm+weights=int8": "vllm-int8-",
}
PEERS = ("hf-generate", "hf-static", "hf-continuous", "kvpress", *FOLDERS)
#: A multiple of what engines with a paged cache call a block.
PAGE_TOKENS = 128
#: Tokens of a block of OpenVINO's paged cache on a CPU.
OPENVINO_BLOCK = 32
#: The option of a name that rounds the weights, as model.weights does.
INT8 = "weights=int8"


def named_policy(name: str, workload: Workload) -> Policy:
    """A policy by its name and options, as in "thinkv+quantize=true"."""
    policy_name, *options = [part for part in name.split("+") if part != INT8]
    common = (workload.budget, workload.window_size, workload.keep_ratio)
    config = Config(
        input=InputConfig(path="unused", prompt_column="unused"),
        policy=PolicyConfig(policy_name, *common),
        run=RunConfig(dir="unused"),
    )
    return make_policy(override_config(config, [f"policy.{option}" for option in options]).policy)


def weight_kind(name: str) -> type[PackedWeight]:
    """How a policy's name says that weights are stored."""
    return Int8Weight if INT8 in name.split("+") else PackedWeight


def make_engine(workload: Workload, policy_name: str, load: Load) -> Engine:
    """Our engine, sized for `load`; the importance predictor has random weights,
    which cost what real ones do."""
    model = fuse_layers(pack_linears(workload.make_model(), weight_kind(policy_name)))
    model.set_attn_implementation(register_attention())
    loaded = LoadedModel(
        decoder=model.base_model,
        head=model.lm_head,
        tokenizer=AutoTokenizer.from_pretrained(workload.model or model_path("embedded")),
        stop_token_ids=frozenset(),
        config=model.config,
        device=model.device,
    )
    policy = named_policy(policy_name, workload)
    torch.manual_seed(0)
    predictor = ImportancePredictor(model.config.hidden_size, "state+place").to(model.device)
    sampling = SamplingConfig(temperature=0.0, max_new_tokens=max(load.num_new_tokens))
    memory = MemoryConfig(max_seqs=load.batch_size, max_prompt_tokens=max(map(len, load.prompts)))
    return Engine(loaded, policy, sampling, memory, [pack_linears(predictor)])


def load_requests(load: Load) -> list[Request]:
    return [
        Request(str(index), prompt_token_ids=prompt, max_new_tokens=num_new_tokens)
        for index, (prompt, num_new_tokens) in enumerate(
            zip(load.prompts, load.num_new_tokens, strict=True)
        )
    ]


def run_engine(engine: Engine, load: Load) -> list[Completion]:
    """Completions in the load's order."""
    completions = engine.generate(load_requests(load))
    return sorted(completions, key=lambda completion: int(completion.request_id))


def dynts_batch_engine(workload: Workload, policy_name: str, load: Load) -> Contender:
    engine = make_engine(workload, policy_name, load)
    return lambda load: timed(
        lambda: [list(c.completion_token_ids) for c in run_engine(engine, load)]
    )


def huggingface_generate(workload: Workload, cache_implementation: str | None) -> Contender:
    model = workload.make_model()
    return lambda load: timed(lambda: generate_static_batches(model, load, cache_implementation))


def huggingface_continuous(workload: Workload) -> Contender:
    """transformers' continuous batching, with a paged cache that holds
    one batch of the load at full length."""
    model = workload.make_model()
    # -1 is its own word for "never stop".
    settings = GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=0)

    def run(load: Load) -> list[list[int]]:
        longest = max(map(len, load.prompts)) + max(load.num_new_tokens)
        page_size = ContinuousBatchingConfig.page_size
        paging = ContinuousBatchingConfig(
            num_blocks=load.batch_size * (longest // page_size + 1),
            max_batch_tokens=max(4096, load.batch_size),
            max_requests_per_batch=load.batch_size,
            allow_block_sharing=False,
        )
        manager = model.init_continuous_batching(settings, paging)
        manager.start()
        try:
            ids = [
                manager.add_request(prompt, max_new_tokens=n)
                for prompt, n in zip(load.prompts, load.num_new_tokens, strict=True)
            ]
            found: dict[str, list[int]] = {}
            while len(found) < len(ids):
                result = manager.get_result(timeout=1)
                if result is not None and result.is_finished():
                    found[result.request_id] = result.generated_tokens
                assert result is not None or manager.is_running(), "it died: see its log"
        finally:
            manager.stop(block=True)
            manager.destroy()
        return [found[request_id] for request_id in ids]

    return lambda load: timed(lambda: run(load))


def outside_settings(name: str, workload: Workload, load: Load) -> dict[str, Any]:
    """What an engine in another environment is told."""
    if name == "kvpress":
        return asdict(workload)
    if workload.model is None:
        raise ConfigError(
            f"contender {name} needs --model, the folder of a real model, got nothing"
        )
    folder = Path(workload.model)
    longest_prompt = max(map(len, load.prompts))
    longest = longest_prompt + max(load.num_new_tokens)
    stored = stored_tokens(name, workload, longest_prompt, longest)
    pages = load.batch_size * (stored // PAGE_TOKENS + 1)
    return {
        "model": str(folder.with_name(FOLDERS[name] + folder.name)),
        "dtype": workload.dtype,
        "batch_size": load.batch_size,
        "max_model_len": longest,
        "kv_tokens": pages * PAGE_TOKENS,
        "kv_bytes": pages * PAGE_TOKENS * workload.kv_bytes_per_token,
        "budget": workload.budget if name.startswith("openvino-evicting") else None,
        "window_size": workload.window_size,
        "num_threads": torch.get_num_threads(),
    }


def stored_tokens(name: str, workload: Workload, prompt_tokens: int, num_tokens: int) -> int:
    """Most tokens that a peer stores of a sequence of `num_tokens`."""
    if name == "kvpress":
        return workload.budget
    if name.startswith("openvino-evicting"):
        # It evicts when the block behind the budget is full.
        return min(num_tokens, max(prompt_tokens, workload.budget) + OPENVINO_BLOCK)
    return num_tokens


def make_contender(
    name: str, workload: Workload, load: Load, pythons: Mapping[str, str] = MappingProxyType({})
) -> Contender:
    """One of `PEERS`, or one of our policies, as `named_policy` reads it. `load` is the largest
    that it will be given; `pythons`: the interpreters of other environments, by what they have.

    Raises: ConfigError for an unknown name, or an engine of another
    environment without its interpreter.
    """
    match name:
        case "hf-generate":
            return huggingface_generate(workload, None)
        case "hf-static":
            return huggingface_generate(workload, "static")
        case "hf-continuous":
            return huggingface_continuous(workload)
    if name in PEERS:
        settings = outside_settings(name, workload, load)
        engine = re.split(r"[-+]", name)[0]
        return child_process(engine, pythons.get(engine), settings)
    if name.partition("+")[0] not in POLICIES:
        raise ConfigError(
            f"a contender must be one of {', '.join((*PEERS, *sorted(POLICIES)))}, got {name!r}"
        )
    return dynts_batch_engine(workload, name, load)
