"""How much memory a model's sequences take, and how many fit. Allocates none."""

from collections.abc import Sequence

import torch
from transformers import PretrainedConfig

from dynts_batch.config import MemoryConfig
from dynts_batch.engine.model.resolved import ResolvedModel
from dynts_batch.errors import ConfigError
from dynts_batch.kvcache.arena_shape import ArenaShape
from dynts_batch.kvcache.policy import Policy
from dynts_batch.kvcache.recorders import recorders_of
from dynts_batch.kvcache.stores.formats import GROUP

#: Sequences decoded together if nothing else bounds the arena.
DEFAULT_MAX_SEQS = 32
#: Share of the free GPU memory after the weights that the arena takes if nothing else bounds it.
GPU_MEMORY_SHARE = 0.8
#: Bytes per logit: in the model's type, in float32, by temperature, sorted, and its token id.
LOGIT_BYTES = 24


def check_memory(
    model: ResolvedModel, policy: Policy, memory: MemoryConfig, max_new_tokens: int
) -> None:
    """Check that the memory settings hold one sequence of `model`, stored as `policy` says.

    Raises: ConfigError if not.
    """
    shape = arena_shape(model.config, policy, model.dtype, [model.companions.told_apart])
    capacity = policy.capacity(memory.max_prompt_tokens, max_new_tokens)
    plan_max_seqs(shape, capacity, memory, free_bytes=None)


def arena_shape(
    model_config: PretrainedConfig,
    policy: Policy,
    dtype: torch.dtype,
    companions: Sequence[object] = (),
) -> ArenaShape:
    """The arena that `policy` needs, with the columns that are of use with the model's
    `companions`.

    Raises: ConfigError if keys and values of this model cannot be quantised.
    """
    num_heads = model_config.num_attention_heads
    head_dim = getattr(model_config, "head_dim", None) or model_config.hidden_size // num_heads
    if policy.stored_in and head_dim % GROUP:
        raise ConfigError(
            f"policy.quantize must be false for a model whose head_dim is no multiple of {GROUP},"
            f" got {policy.quantize} and a head_dim of {head_dim}"
        )
    recorders = recorders_of(policy.requires, companions)
    return ArenaShape(
        num_layers=model_config.num_hidden_layers,
        num_kv_heads=getattr(model_config, "num_key_value_heads", None) or num_heads,
        head_dim=head_dim,
        dtype=dtype,
        per_head=policy.per_head,
        columns=tuple(recorder.column for recorder in recorders),
        num_queries=max([policy.num_queries, *(recorder.num_queries for recorder in recorders)]),
        num_query_heads=num_heads,
        stored_in=policy.stored_in,
    )


def prefill_bytes(model_config: PretrainedConfig, dtype: torch.dtype, num_tokens: int) -> int:
    """Most bytes of a layer's activations: residual, projections, attention, both MLP halves."""
    hidden_size = model_config.hidden_size
    # GPT-2 and its kin do not name the width of their MLP: it is four times the hidden size.
    intermediate_size = getattr(model_config, "intermediate_size", None) or 4 * hidden_size
    widest = 8 * hidden_size + 3 * intermediate_size
    return num_tokens * widest * dtype.itemsize


def room_on_gpu(free_bytes: int, total_bytes: int, own_bytes: int, gpu_share: float) -> int:
    """What is left of this process's share of a GPU, of which it holds `own_bytes`.

    It is the same for all processes that share the GPU, whoever asks first.
    """
    return min(free_bytes, int(total_bytes * gpu_share) - own_bytes)


def bytes_on_gpu(device: torch.device, gpu_share: float, other_bytes: int) -> int | None:
    """What is left of our share of a GPU's memory beside `other_bytes`; None on a CPU.

    It is for the arena and the logits.
    """
    if device.type != "cuda":
        return None
    free_bytes, total_bytes = torch.cuda.mem_get_info(device)
    own_bytes = torch.cuda.memory_reserved(device)
    return room_on_gpu(free_bytes, total_bytes, own_bytes, gpu_share) - other_bytes


def plan_max_seqs(
    shape: ArenaShape,
    capacity: int,
    memory: MemoryConfig,
    free_bytes: int | None,
    vocab_size: int = 0,
) -> int:
    """How many sequences of `capacity` tokens the memory settings hold.

    `free_bytes`: of a GPU, None on a CPU. If they bound it, each sequence also takes a row of
    `vocab_size` logits.

    Raises: ConfigError if not even one fits, with both numbers.
    """
    budget_bytes, sequence_bytes = _budget(shape, capacity, memory, free_bytes, vocab_size)
    if budget_bytes is None:
        return memory.max_seqs or DEFAULT_MAX_SEQS
    num_seqs = budget_bytes // sequence_bytes
    if num_seqs < 1:
        is_given = memory.kv_gib is not None
        source = f"memory.kv_gib ({memory.kv_gib})" if is_given else "the GPU's free memory"
        queries = f" and {shape.num_queries} queries" if shape.num_queries else ""
        raise ConfigError(
            f"{source} must hold at least one sequence: {capacity} tokens x {shape.bytes_per_token}"
            f" bytes{queries} = {sequence_bytes} bytes, got {budget_bytes} bytes"
        )
    return min(num_seqs, memory.max_seqs or num_seqs)


def bytes_left(
    shape: ArenaShape, capacity: int, memory: MemoryConfig, free_bytes: int | None, vocab_size: int
) -> int | None:
    """What the sequences of `plan_max_seqs` leave of the memory that bounds them; None: nothing
    does."""
    budget_bytes, sequence_bytes = _budget(shape, capacity, memory, free_bytes, vocab_size)
    if budget_bytes is None:
        return None
    num_seqs = plan_max_seqs(shape, capacity, memory, free_bytes, vocab_size)
    return budget_bytes - num_seqs * sequence_bytes


def _budget(
    shape: ArenaShape, capacity: int, memory: MemoryConfig, free_bytes: int | None, vocab_size: int
) -> tuple[int | None, int]:
    """The memory that bounds the sequences, and what one of them takes of it. None: nothing
    does."""
    sequence_bytes = shape.bytes_per_sequence(capacity)
    if memory.kv_gib is not None:
        return int(memory.kv_gib * 2**30), sequence_bytes
    if free_bytes is not None:
        return int(free_bytes * GPU_MEMORY_SHARE), sequence_bytes + vocab_size * LOGIT_BYTES
    return None, sequence_bytes
