"""The engine's bookkeeping: memory, counters, errors and order."""

from pathlib import Path

import pytest
import torch

from dynts_batch.config import MemoryConfig, ModelConfig, PolicyConfig, SamplingConfig
from dynts_batch.engine import Engine
from dynts_batch.engine.model.memory import plan_max_seqs, room_on_gpu
from dynts_batch.errors import ConfigError
from dynts_batch.kvcache.arena_shape import ArenaShape
from dynts_batch.records import Request


def make_engine(
    folder: Path, policy: PolicyConfig, memory: MemoryConfig, max_new_tokens: int = 30
) -> Engine:
    sampling = SamplingConfig(temperature=0.9, max_new_tokens=max_new_tokens)
    return Engine.load(ModelConfig(name=str(folder)), policy, sampling, memory)


def test_counters_add_up(tiny_model_dirs: dict[str, Path]) -> None:
    policy = PolicyConfig(name="window", budget=24, window_size=6, keep_ratio=0.5)
    engine = make_engine(tiny_model_dirs["llama"], policy, MemoryConfig(max_seqs=3))
    requests = [Request(str(i), prompt_token_ids=list(range(10, 14 + i))) for i in range(7)]
    completions = list(engine.generate(requests))
    bytes_per_token = engine.arena.shape.kv_bytes_per_token
    for completion in completions:
        processed = completion.prompt_tokens + completion.completion_tokens - 1
        assert completion.completion_tokens == len(completion.completion_token_ids)
        assert completion.full_kv_bytes == processed * bytes_per_token
        assert completion.peak_kv_bytes == completion.peak_cache_len * bytes_per_token
        assert completion.peak_cache_len == min(processed, 24)
        assert completion.evicted_tokens < processed
    assert sum(c.device_s for c in completions) == pytest.approx(engine.busy_s, rel=1e-9)
    assert engine.num_running == engine.num_waiting == engine.stored_tokens == 0


def test_the_arena_never_exceeds_its_bytes_and_one_sequence_must_fit(
    tiny_model_dirs: dict[str, Path],
) -> None:
    policy = PolicyConfig(name="random", budget=32, window_size=6)
    engine = make_engine(tiny_model_dirs["llama"], policy, MemoryConfig(kv_gib=2**-11))
    assert 0 < engine.arena.num_bytes <= 2**19
    assert engine.max_seqs == 2**19 // (32 * engine.arena.shape.bytes_per_token)
    assert (
        make_engine(
            tiny_model_dirs["llama"], policy, MemoryConfig(kv_gib=2**-11, max_seqs=2)
        ).max_seqs
        == 2
    )
    needed = 32 * engine.arena.shape.bytes_per_token
    with pytest.raises(
        ConfigError, match=rf"memory.kv_gib \(1e-06\) .* = {needed} bytes, got 1073 bytes"
    ):
        make_engine(tiny_model_dirs["llama"], policy, MemoryConfig(kv_gib=1e-6))


def test_requests_that_cannot_run_become_errors_and_the_others_go_on(
    tiny_model_dirs: dict[str, Path],
) -> None:
    policy = PolicyConfig(name="window", budget=24, window_size=6)
    engine = make_engine(tiny_model_dirs["llama"], policy, MemoryConfig(max_seqs=3))
    requests = [
        Request("long", prompt_token_ids=[9] * 18),
        Request("longest that fits", prompt_token_ids=[9] * 17),
        Request("empty", prompt_token_ids=[]),
        Request("not a token", prompt_token_ids=[10**6]),
        Request("nothing"),
        Request("roleless", messages=[{"content": "hello"}]),
        Request("half a surrogate pair", prompt="a\ud800"),
        Request("fine", prompt="hello"),
    ]
    by_id = {completion.request_id: completion for completion in engine.generate(requests)}
    assert {k for k, c in by_id.items() if c.finish_reason != "error"} == {
        "longest that fits",
        "fine",
    }
    assert by_id["long"].error_type == "PromptTooLongError"
    assert "at most 17 tokens" in (by_id["long"].error_message or "")
    assert {by_id[k].error_type for k in by_id.keys() - {"long", "longest that fits", "fine"}} == {
        "BadRowError"
    }


def test_policy_full_means_the_full_cache_whatever_else_is_set(
    tiny_model_dirs: dict[str, Path],
) -> None:
    """`policy.name=full` on the command line must give a bounded run's reference."""
    bounded = PolicyConfig(name="full", budget=16, window_size=4)
    memory = MemoryConfig(max_seqs=2, max_prompt_tokens=20)
    requests = [Request("a", prompt_token_ids=list(range(10, 20)))]
    (completion,) = make_engine(tiny_model_dirs["llama"], bounded, memory).generate(requests)
    (reference,) = make_engine(
        tiny_model_dirs["llama"], PolicyConfig(name="full"), memory
    ).generate(requests)
    assert completion.completion_token_ids == reference.completion_token_ids
    assert completion.evicted_tokens == 0


def test_generate_reads_ahead_no_more_than_a_batch(tiny_model_dirs: dict[str, Path]) -> None:
    engine = make_engine(
        tiny_model_dirs["llama"], PolicyConfig(name="full"), MemoryConfig(max_seqs=3), 5
    )
    read: list[int] = []

    def source():
        for index in range(40):
            read.append(index)
            yield Request(str(index), prompt_token_ids=[10 + index])

    completions = engine.generate(source())
    next(completions)
    assert len(read) <= 2 * 3
    assert len(list(completions)) == 39


def test_on_a_gpu_each_sequence_also_needs_its_logits() -> None:
    shape = ArenaShape(2, 2, 16, torch.bfloat16)
    free_bytes, capacity = 10**7, 100
    without = plan_max_seqs(shape, capacity, MemoryConfig(), free_bytes)
    assert without == int(0.8 * free_bytes) // shape.bytes_per_sequence(capacity)
    sequence_bytes = shape.bytes_per_sequence(capacity) + 24 * 1000
    assert plan_max_seqs(shape, capacity, MemoryConfig(), free_bytes, vocab_size=1000) == (
        int(0.8 * free_bytes) // sequence_bytes
    )
    bounded = MemoryConfig(kv_gib=2**-10)
    assert plan_max_seqs(shape, capacity, bounded, free_bytes, 1000) == plan_max_seqs(
        shape, capacity, bounded, None
    )


def test_the_engine_parts_completions_by_the_models_tags() -> None:
    """The embedded model with a word of its thinking for the end of it:
    the same tokens, parted there."""
    usual, other = (
        next(
            Engine.load(
                ModelConfig(think_tags=tags),
                sampling=SamplingConfig(temperature=0.0, max_new_tokens=40),
                memory=MemoryConfig(max_seqs=1),
            ).generate([Request("a", prompt="Let a = 3, b = a + 2. What is b - a?")])
        )
        for tags in (None, ["<think>", "a"])
    )
    assert usual.answer is None
    assert usual.reasoning is not None
    assert other.completion_token_ids == usual.completion_token_ids
    reasoning, _, answer = usual.reasoning.partition("a")
    assert answer
    assert (other.reasoning, other.answer) == (reasoning, answer)
    assert 0 <= other.reasoning_tokens < other.completion_tokens


@pytest.mark.parametrize("num_workers", [1, 2, 4])
def test_workers_that_share_a_gpu_take_as_much_each_and_no_more_than_there_is(num_workers) -> None:
    """Each took 80% of what was free at its moment:
    the first one all, and the next ones ran out."""
    shape, capacity, weights_bytes, total_bytes = (
        ArenaShape(2, 2, 16, torch.bfloat16),
        100,
        10**8,
        10**9,
    )
    free_bytes, sizes = total_bytes, []
    for _ in range(num_workers):
        free_bytes -= weights_bytes
        room = room_on_gpu(free_bytes, total_bytes, weights_bytes, 1 / num_workers)
        sizes.append(plan_max_seqs(shape, capacity, MemoryConfig(), room))
        free_bytes -= sizes[-1] * shape.bytes_per_sequence(capacity)
    assert len(set(sizes)) == 1
    assert 0.1 * total_bytes < free_bytes < 0.3 * total_bytes
