"""A prompt longer than the budget, under policies that may evict from it."""

from dataclasses import replace

import pytest
from policy_kinds import EVICTING, in_short

from dynts_batch.config import MemoryConfig, ModelConfig, PolicyConfig, SamplingConfig
from dynts_batch.engine import Engine
from dynts_batch.kvcache.policies import make_policy
from dynts_batch.records import Completion, Request

BUDGET, MAX_NEW_TOKENS = 40, 30
PROMPT = [10 + 7 * i % 600 for i in range(70)]
#: The predictor reads how long the prompt is, so its prompt is not any text.
READS_PLACES = {"dynts"}
SHORT = {"expected", "h2o", "thinkv"}
NAMES = in_short(SHORT, sorted(set(EVICTING) - READS_PLACES))


def policy_of(name: str, **settings: object) -> PolicyConfig:
    return PolicyConfig(name, budget=BUDGET, window_size=8, protect_prompt=False, **settings)


def complete(
    model: ModelConfig, policy: PolicyConfig, requests: list[Request], num_samples: int = 1
) -> dict[tuple[str, int], Completion]:
    sampling = SamplingConfig(
        temperature=0.8, max_new_tokens=MAX_NEW_TOKENS, num_samples=num_samples, logprobs=True
    )
    engine = Engine.load(model, policy, sampling, MemoryConfig(max_seqs=3, max_prompt_tokens=140))
    found = {(c.request_id, c.sample_index): c for c in engine.generate(requests)}
    assert engine.num_running == engine.num_waiting == engine.stored_tokens == 0
    return found


@pytest.mark.parametrize("quantize", [False, pytest.param("int4", marks=pytest.mark.long)])
@pytest.mark.parametrize("name", NAMES)
def test_what_does_not_fit_is_read_as_if_the_model_had_written_it(
    name: str, quantize: bool | str, told_apart_model: ModelConfig
) -> None:
    """So a completion goes on from any of its own tokens, given as the prompt's end."""
    policy = policy_of(name, quantize=quantize)
    whole = complete(told_apart_model, policy, [Request("q", prompt_token_ids=PROMPT)])["q", 0]
    assert whole.finish_reason != "error"
    assert whole.prompt_tokens == len(PROMPT)
    assert whole.peak_cache_len == BUDGET
    given = 17
    prompt = PROMPT + list(whole.completion_token_ids[:given])
    requests = [
        Request("short", prompt_token_ids=PROMPT[:5]),
        Request("q", prompt_token_ids=prompt, trace=True),
        Request("long", prompt_token_ids=PROMPT * 2),
    ]
    rest = complete(told_apart_model, policy, requests)["q", 0]
    num_tokens = len(whole.completion_token_ids) - given
    assert rest.completion_token_ids[:num_tokens] == whole.completion_token_ids[given:]
    assert rest.logprobs is not None
    assert whole.logprobs is not None
    assert rest.logprobs[:num_tokens] == pytest.approx(whole.logprobs[given:], abs=1e-5)
    assert rest.token_trace is not None
    assert max(rest.token_trace["stored_len"]) <= BUDGET == rest.peak_cache_len
    assert len(rest.token_trace["token_texts"]) == len(prompt) + rest.completion_tokens


@pytest.mark.parametrize("name", ["dynts", "thinkv"])
def test_samples_and_batch_mates_change_no_row(name: str, told_apart_model: ModelConfig) -> None:
    requests = [
        Request(str(length), k, prompt_token_ids=(PROMPT * 2)[:length])
        for length in (39, 90, 12)
        for k in range(2)
    ]
    together = complete(told_apart_model, policy_of(name), requests, num_samples=2)
    for request in requests:
        alone = complete(told_apart_model, policy_of(name), [request])
        key = request.request_id, request.sample_index
        assert together[key].completion_token_ids == alone[key].completion_token_ids
        assert together[key].num_evictions == alone[key].num_evictions


@pytest.mark.parametrize(("is_protected", "longest"), [(True, 31), (False, 140)])
def test_a_protected_prompt_must_fit_and_no_other_is_read_without_end(
    is_protected: bool, longest: int, told_apart_model: ModelConfig
) -> None:
    policy = replace(policy_of("rkv"), protect_prompt=is_protected)
    prompts = {n: (PROMPT * 3)[:n] for n in (longest, longest + 1)}
    requests = [Request(str(n), prompt_token_ids=prompt) for n, prompt in prompts.items()]
    found = complete(told_apart_model, policy, requests)
    assert found[str(longest), 0].finish_reason != "error"
    refused = found[str(longest + 1), 0]
    assert refused.error_type == "PromptTooLongError"
    assert f"at most {longest} tokens" in (refused.error_message or "")
    key = "policy.budget" if is_protected else "memory.max_prompt_tokens"
    assert (refused.error_message or "").endswith(f"raise {key}")


def test_a_thought_that_is_given_no_room_is_ended_after_the_prompt(
    told_apart_model: ModelConfig,
) -> None:
    """Forced tokens wait until the whole prompt has been read."""
    sampling = SamplingConfig(temperature=0.0, max_new_tokens=20, max_thinking_tokens=0)
    engine = Engine.load(told_apart_model, policy_of("window"), sampling, MemoryConfig(max_seqs=1))
    assert len(PROMPT) > engine.arena.capacity
    prompt = [*PROMPT, *engine._renderer.encode("<think>")]
    (completion,) = engine.generate([Request("q", prompt_token_ids=prompt)])
    assert completion.forced_end == "budget"
    text = engine._renderer.text(completion.completion_token_ids)
    assert text.startswith(sampling.end_thinking_text)


@pytest.mark.parametrize("name", EVICTING)
def test_no_policy_refuses_a_prompt_of_the_allowed_length_unless_it_protects_it(name: str) -> None:
    assert make_policy(policy_of(name)).longest_prompt(140) == 140
    assert make_policy(policy_of(name)).longest_prompt(2) == BUDGET - 1
