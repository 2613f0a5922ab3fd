"""The samples of one prompt: it is processed once, and no row is another for that."""

from collections.abc import Sequence

import pytest
from policy_kinds import in_short

from dynts_batch.config import MemoryConfig, ModelConfig, PolicyConfig, SamplingConfig
from dynts_batch.engine import Engine, scheduler, sequence
from dynts_batch.engine.model_runner import ModelRunner
from dynts_batch.records import Completion, Request

LENGTHS = (30, 7, 16, 1)
NUM_SAMPLES = 3
MAX_NEW_TOKENS = 34
REQUESTS = [
    Request(str(length), sample_index=k, prompt_token_ids=range(10, 10 + length))
    for length in LENGTHS
    for k in range(NUM_SAMPLES)
]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 16 tokens, as groups of a quantised store are; and of one prompt, since torch's attention
    rounds padding otherwise in the last bits."""
    monkeypatch.setattr(sequence, "PREFILL_CHUNK", 16)
    for name in ("PREFILL_CHUNK", "MAX_PREFILL_TOKENS"):
        monkeypatch.setattr(scheduler, name, 1)


@pytest.fixture
def processed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many prompt tokens each pass through the model has had."""
    counts: list[int] = []
    prefill = ModelRunner.prefill

    def counted(runner: ModelRunner, sequences: dict) -> tuple[list[int], list[float | None]]:
        counts.append(sum(len(sequence.prompt_chunk) for sequence in sequences.values()))
        return prefill(runner, sequences)

    monkeypatch.setattr(ModelRunner, "prefill", counted)
    return counts


def completions(
    model: ModelConfig,
    policy: PolicyConfig,
    requests: Sequence[Request] = REQUESTS,
    *,
    num_samples: int,
    memory: MemoryConfig = MemoryConfig(max_seqs=3, max_prompt_tokens=32),
) -> dict[tuple[str, int], Completion]:
    """By request and sample; only where the run has several samples is anything shared."""
    sampling = SamplingConfig(
        temperature=0.8, max_new_tokens=MAX_NEW_TOKENS, num_samples=num_samples, logprobs=True
    )
    engine = Engine.load(model, policy, sampling, memory)
    found = {(c.request_id, c.sample_index): c for c in engine.generate(requests)}
    assert engine.num_running == engine.num_waiting == engine.stored_tokens == 0
    assert sum(c.device_s for c in found.values()) == pytest.approx(engine.busy_s, rel=1e-9)
    return found


def rows(found: dict[tuple[str, int], Completion]) -> dict[tuple[str, int], tuple]:
    return {
        key: (
            c.completion_token_ids,
            c.logprobs,
            c.finish_reason,
            c.peak_cache_len,
            c.num_evictions,
        )
        for key, c in found.items()
    }


#: One policy for each thing that is recorded of a prompt: importance, attention, queries, thoughts.
#: And one that records nothing.
SHORT = ("cur", "dynts", "h2o", "snapkv", "thinkv")
PLAIN = [pytest.param(*x.values, False, marks=x.marks) for x in in_short(SHORT)]
#: A store is tried with the policies that record the most.
QUANTISED = [
    pytest.param(name, quantize, marks=marks)
    for quantize, short in (("int4", "h2o"), ("nvfp4", "thinkv"))
    for name in ("dynts", "rkv", "h2o", "thinkv")
    for marks in [[] if name == short else pytest.mark.long]
]


@pytest.mark.parametrize(("name", "quantize"), [*PLAIN, *QUANTISED])
def test_samples_that_share_a_prompt_are_the_same_rows_bit_for_bit_whatever_is_recorded(
    name: str,
    quantize: bool | str,
    told_apart_model: ModelConfig,
    processed: list[int],
) -> None:
    """Lanes evict, end and are refilled while samples of the same prompt begin."""
    policy = PolicyConfig(name, budget=48, window_size=8, quantize=quantize)
    alone = completions(told_apart_model, policy, num_samples=1)
    assert sum(processed) == NUM_SAMPLES * sum(LENGTHS)
    processed.clear()
    assert rows(completions(told_apart_model, policy, num_samples=NUM_SAMPLES)) == rows(alone)
    assert sum(processed) == sum(LENGTHS), "every prompt went through the model once"


def test_samples_of_a_prompt_beyond_the_budget_share_what_is_read_at_once(
    told_apart_model: ModelConfig, processed: list[int]
) -> None:
    budget = 24
    policy = PolicyConfig("dynts", budget=budget, window_size=8, protect_prompt=False)
    alone = completions(told_apart_model, policy, num_samples=1)
    at_once = sum(min(length, budget - 1) for length in LENGTHS)
    assert sum(processed) == NUM_SAMPLES * at_once
    processed.clear()
    assert rows(completions(told_apart_model, policy, num_samples=NUM_SAMPLES)) == rows(alone)
    assert sum(processed) == at_once


def test_a_prompt_is_kept_within_the_memory_that_is_left(
    told_apart_model: ModelConfig,
    processed: list[int],
) -> None:
    policy = PolicyConfig("full")
    long = [Request("p", k, prompt_token_ids=range(10, 40)) for k in range(NUM_SAMPLES)]
    alone = completions(told_apart_model, policy, long, num_samples=1)
    shape = Engine.load(
        told_apart_model, policy, SamplingConfig(max_new_tokens=MAX_NEW_TOKENS)
    ).arena.shape
    sequence, kept = shape.bytes_per_sequence(32 + MAX_NEW_TOKENS), shape.bytes_per_sequence(256)
    for left, num_processed in ((kept, 1), (kept - 1024, NUM_SAMPLES)):
        processed.clear()
        memory = MemoryConfig(
            kv_gib=(2 * sequence + left) / 2**30, max_prompt_tokens=32, max_seqs=2
        )
        found = completions(told_apart_model, policy, long, num_samples=NUM_SAMPLES, memory=memory)
        assert rows(found) == rows(alone)
        assert sum(processed) == num_processed * 30
