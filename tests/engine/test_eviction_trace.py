"""Laws of the eviction trace: it accounts for every token the counters count,
and changes nothing."""

import dataclasses
from pathlib import Path

import pytest
import torch

from dynts_batch.config import MemoryConfig, ModelConfig, PolicyConfig, SamplingConfig
from dynts_batch.engine import Engine
from dynts_batch.engine.eviction_trace import EvictionTrace
from dynts_batch.records import Completion, Request

BUDGET = 24


def run(folder: Path, policy: str, *, trace: bool) -> list[Completion]:
    engine = Engine.load(
        ModelConfig(name=str(folder)),
        PolicyConfig(name=policy, budget=BUDGET, window_size=6, keep_ratio=0.5),
        SamplingConfig(temperature=0.9, max_new_tokens=60),
        MemoryConfig(max_seqs=3),
    )
    requests = [
        Request(str(i), prompt_token_ids=list(range(10, 14 + i)), trace=trace) for i in range(4)
    ]
    completions = sorted(engine.generate(requests), key=lambda c: c.request_id)
    times = {"queue_s": 0, "prefill_s": 0, "decode_s": 0, "device_s": 0}
    return [dataclasses.replace(completion, **times) for completion in completions]


@pytest.mark.parametrize("policy", ["window", "random", "full"])
def test_it_accounts_for_every_eviction(tiny_model_dirs: dict[str, Path], policy: str) -> None:
    for completion in run(tiny_model_dirs["llama"], policy, trace=True):
        trace = completion.token_trace
        assert trace is not None
        seq_len = completion.prompt_tokens + completion.completion_tokens
        assert [len(values) for values in trace.values()] == [seq_len] * 5
        stored = trace["kept_share"][: seq_len - 1]  # the newest token is never stored
        assert sum(stored) == pytest.approx(seq_len - 1 - completion.evicted_tokens)
        assert all(at is None for at in trace["evicted_at"][: completion.prompt_tokens])
        assert trace["stored_len"][-1] == seq_len - 1 - completion.evicted_tokens
        assert max(trace["stored_len"]) <= BUDGET or policy == "full"
        for position, (at, share) in enumerate(
            zip(trace["evicted_at"], trace["kept_share"], strict=True)
        ):
            assert (at is None) == (share > 0)
            assert at is None or position < at <= seq_len - 1


def test_it_says_when_half_of_the_holders_and_when_the_last_let_go() -> None:
    """Against counting the holders of each token after each of twelve evictions."""
    generator = torch.Generator().manual_seed(3)
    num_holders, trace = 6, EvictionTrace()
    kept = [set(range(0)) for _ in range(num_holders)]
    holders: dict[int, list[int]] = {}  # by position: how many hold it, eviction after eviction
    for num_processed in range(10, 58, 4):
        for i, its in enumerate(kept):
            its |= set(range(0 if num_processed == 10 else num_processed - 4, num_processed))
            order = torch.randperm(len(its), generator=generator)[:7].tolist()
            kept[i] = {sorted(its)[place] for place in order}
        positions = torch.tensor([sorted(its) for its in kept]).view(2, 3, 7)
        trace.observe(positions, num_processed)
        for position in range(num_processed):
            holders.setdefault(position, []).append(sum(position in its for its in kept))
    times, record = list(range(10, 58, 4)), trace.record([""] * 56)
    for position, counts in holders.items():
        its_times = times[-len(counts) :]
        for name, least in (("evicted_at", 1), ("half_evicted_at", 3)):
            found = [time for time, num in zip(its_times, counts, strict=True) if num < least]
            assert record[name][position] == (found[0] if found else None)
        assert record["kept_share"][position] == pytest.approx(counts[-1] / num_holders)
    assert record["stored_len"][8:16] == [9, 7, 8, 9, 10, 7, 8, 9]


def test_where_all_heads_agree_the_cache_can_be_replayed_step_by_step(
    tiny_model_dirs: dict[str, Path],
) -> None:
    for completion in run(tiny_model_dirs["llama"], "window", trace=True):
        assert completion.token_trace is not None
        evicted_at = completion.token_trace["evicted_at"]
        assert completion.token_trace["half_evicted_at"] == evicted_at
        times = {at for at in evicted_at if at is not None}
        assert len(times) == completion.num_evictions
        for seq_len in range(1, len(evicted_at)):
            held = [at is None or at > seq_len for at in evicted_at[:seq_len]]
            assert sum(held) == completion.token_trace["stored_len"][seq_len - 1] <= BUDGET
            # The policy is `window`: what goes is the oldest behind the prompt.
            assert held[completion.prompt_tokens :] == sorted(held[completion.prompt_tokens :])


def test_tracing_changes_nothing_else(tiny_model_dirs: dict[str, Path]) -> None:
    traced = run(tiny_model_dirs["llama"], "random", trace=True)
    plain = run(tiny_model_dirs["llama"], "random", trace=False)
    assert all(completion.token_trace is None for completion in plain)
    assert [dataclasses.replace(completion, token_trace=None) for completion in traced] == plain
