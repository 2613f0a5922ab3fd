"""The loads that contenders are compared on: equal batch, equal memory, lengths of real traces."""

from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import files

import pyarrow.parquet as pq
import torch

from dynts_batch.benchmarks.contenders.contenders import (
    PEERS,
    named_policy,
    run_engine,
    stored_tokens,
)
from dynts_batch.benchmarks.workload import Load, Workload
from dynts_batch.config import MemoryConfig, ModelConfig, PolicyConfig, SamplingConfig
from dynts_batch.engine.engine import Engine
from dynts_batch.engine.model.memory import arena_shape
from dynts_batch.errors import ConfigError
from dynts_batch.records import Request


def equal_batch(names: Sequence[str], workload: Workload) -> dict[str, Load]:
    return dict.fromkeys(names, workload.load())


def equal_memory(names: Sequence[str], workload: Workload) -> dict[str, Load]:
    """The same requests for all, each with the largest batch whose KV cache fits into `kv_gib`.

    Raises: ConfigError if not even one sequence fits.
    """
    num_bytes = int(workload.kv_gib * 2**30)
    largest = {name: num_bytes // sequence_bytes(name, workload) for name in names}
    if min(largest.values()) < 1:
        raise ConfigError(
            f"kv_gib ({workload.kv_gib}) must hold one sequence of every contender, "
            f"got {num_bytes} bytes"
        )
    num_requests = workload.num_requests or max(largest.values())
    load = replace(workload, num_requests=num_requests).load()
    return {name: replace(load, batch_size=min(n, num_requests)) for name, n in largest.items()}


def sequence_bytes(name: str, workload: Workload) -> int:
    """Most KV bytes of one sequence; for our policies with everything that belongs to its slots."""
    if name in PEERS:
        whole = workload.prompt_tokens + workload.max_new_tokens
        num_tokens = stored_tokens(name, workload, workload.prompt_tokens, whole)
        if name.startswith("openvino"):
            return num_tokens * openvino_bytes_per_token(workload)
        return num_tokens * workload.kv_bytes_per_token
    policy = named_policy(name, workload)
    shape = arena_shape(workload.model_config, policy, getattr(torch, workload.dtype))
    capacity = policy.capacity(workload.prompt_tokens, workload.max_new_tokens)
    return shape.bytes_per_sequence(capacity)


def openvino_bytes_per_token(workload: Workload) -> int:
    """Its default on a CPU: a byte a number; a scale and a zero-point of 4 bytes each a head."""
    config = workload.model_config
    return 2 * config.num_hidden_layers * config.num_key_value_heads * (workload.head_dim + 8)


def ragged(names: Sequence[str], workload: Workload) -> dict[str, Load]:
    """Prompt and completion lengths of the embedded model on the shipped problems, or of a real
    model on its problems, decoded now."""
    sampling = SamplingConfig(temperature=0.0, max_new_tokens=workload.max_new_tokens)
    if workload.model is not None:
        return dict.fromkeys(names, _real_lengths(workload, sampling))
    engine = Engine.load(
        policy=PolicyConfig("full"),
        sampling=sampling,
        memory=MemoryConfig(max_seqs=2 * workload.batch_size, max_prompt_tokens=512),
    )
    questions = pq.read_table(str(files("dynts_batch.lab") / "problems.parquet"))["question"]
    requests = (
        Request(str(index), prompt=question)
        for index, question in enumerate(questions.to_pylist()[: workload.num_requests])
    )
    completions = sorted(engine.generate(requests), key=lambda c: int(c.request_id))
    generator = torch.Generator().manual_seed(0)
    prompts = [
        torch.randint(0, 256, (c.prompt_tokens,), generator=generator).tolist() for c in completions
    ]
    load = Load(prompts, [c.completion_tokens for c in completions], workload.batch_size)
    return dict.fromkeys(names, load)


def _real_lengths(workload: Workload, sampling: SamplingConfig) -> Load:
    load = workload.load()
    memory = MemoryConfig(max_seqs=load.batch_size, max_prompt_tokens=max(map(len, load.prompts)))
    model = ModelConfig(str(workload.model), dtype=workload.dtype)  # type: ignore[arg-type]
    engine = Engine.load(model, PolicyConfig("full"), sampling, memory)
    completions = run_engine(engine, load)
    engine.close()
    return replace(load, num_new_tokens=[c.completion_tokens for c in completions])


LOADS = {"equal-batch": equal_batch, "equal-memory": equal_memory, "ragged": ragged}
