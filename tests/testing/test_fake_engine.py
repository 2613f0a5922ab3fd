"""Laws of the fake engine: it behaves as an engine does, and its completions depend on nothing."""

import dataclasses

import pytest

from dynts_batch.config import MemoryConfig, PolicyConfig, SamplingConfig
from dynts_batch.engine.engine import Engine
from dynts_batch.errors import ConfigError
from dynts_batch.kvcache.policies import POLICIES, make_policy
from dynts_batch.records import Completion, Request
from dynts_batch.testing.fake_engine import FakeEngine
from dynts_batch.testing.fake_model import FakeSettings, is_fake

REQUESTS = [Request(f"r{i}", prompt=f"how many characters {'x ' * i}") for i in range(12)]


def _engine(name: str = "fake", max_seqs: int = 4, budget: int = 24) -> FakeEngine:
    return FakeEngine(
        FakeSettings.parse(name),
        PolicyConfig(name="window", budget=budget, window_size=4),
        SamplingConfig(max_new_tokens=30),
        MemoryConfig(max_seqs=max_seqs),
    )


def _run(engine: FakeEngine, requests: list[Request]) -> dict[str, Completion]:
    for request in requests:
        engine.add_request(request)
    completions = []
    while engine.has_work():
        completions += engine.step()
        assert engine.num_running <= engine.max_seqs
        assert engine.stored_tokens <= engine.max_seqs * engine.arena.capacity
    assert len(completions) == len(requests)
    return {completion.request_id: completion for completion in completions}


def _timeless(completion: Completion) -> Completion:
    return dataclasses.replace(completion, queue_s=0, prefill_s=0, decode_s=0, device_s=0)


def test_a_completion_is_the_same_alone_and_in_any_batch():
    together = _run(_engine(max_seqs=4), REQUESTS)
    reversed_ = _run(_engine(max_seqs=3), REQUESTS[::-1])
    for request in REQUESTS:
        alone = _run(_engine(), [request])[request.request_id]
        assert _timeless(together[request.request_id]) == _timeless(alone)
        assert _timeless(reversed_[request.request_id]) == _timeless(alone)


def test_the_seed_and_the_sample_index_change_it():
    first = _run(_engine(), [REQUESTS[0]])["r0"]
    other = _run(_engine(), [dataclasses.replace(REQUESTS[0], sample_index=1)])["r0"]
    assert first.reasoning != other.reasoning


def test_device_time_is_shared_out_completely():
    engine = _engine("fake:step_s=0.25,simulated=true")
    completions = _run(engine, REQUESTS)
    assert sum(c.device_s for c in completions.values()) == pytest.approx(engine.busy_s)
    assert engine.busy_s > 1  # counted, not spent


def test_no_sequence_stores_more_than_the_budget():
    for completion in _run(_engine(budget=24), REQUESTS).values():
        total = completion.prompt_tokens + completion.completion_tokens - 1
        assert completion.peak_cache_len == min(total, 24)
        assert completion.evicted_tokens == total - completion.peak_cache_len


def test_a_prompt_above_the_budget_is_an_error_row():
    completion = _run(_engine(), [Request("long", prompt="x " * 24)])["long"]
    assert (completion.finish_reason, completion.error_type) == ("error", "PromptTooLongError")


def test_it_has_all_that_the_engine_has():
    missing = {name for name in vars(FakeEngine) if not name.startswith("_")} - set(dir(Engine))
    assert not missing, f"the runner could come to rely on {missing}"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "fake:step=1",
            "model.name: unknown setting 'step' of 'fake:step=1'. Did you mean step_s?",
        ),
        ("fake:step_s=fast", "model.name: step_s must be a number of seconds, got 'fast'"),
        ("fake:simulated=yes", "model.name: simulated must be true or false, got 'yes'"),
    ],
)
def test_a_wrong_setting_is_named(name, message):
    with pytest.raises(ConfigError) as caught:
        FakeSettings.parse(name)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("name", POLICIES)
def test_its_sequences_have_the_room_that_the_policy_gives_them(name):
    policy = PolicyConfig(name=name, budget=100, window_size=8)
    engine = FakeEngine(
        FakeSettings(), policy, SamplingConfig(max_new_tokens=30), MemoryConfig(max_prompt_tokens=7)
    )
    assert engine.arena.capacity == make_policy(policy).capacity(7, 30)


def test_it_runs_out_of_memory_where_a_prompt_says_so():
    engine = _engine(max_seqs=4)
    for index in range(4):
        engine.add_request(Request(f"r{index}", prompt="[[oom:2]]"))
    with pytest.raises(MemoryError, match="4 sequences, 2 fit"):
        engine.step()
    assert len(_run(_engine(max_seqs=2), [Request("r", prompt="[[oom:2]]")])) == 1


def test_only_its_own_names_select_it():
    assert is_fake("fake")
    assert is_fake("fake:step_s=0.1")
    assert not is_fake("./fake")
    assert not is_fake("fake-model")
