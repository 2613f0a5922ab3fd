"""The laws every policy obeys (methods.md, section 4), over the whole registry, through the engine itself."""

import random
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from dynts_batch.config import MemoryConfig, ModelConfig, PolicyConfig, SamplingConfig
from dynts_batch.engine import Engine
from dynts_batch.engine.loader import LoadedModel, load_model
from dynts_batch.errors import ConfigError
from dynts_batch.kvcache.arena import KVArena
from dynts_batch.kvcache.policies import POLICIES, make_policy, register
from dynts_batch.kvcache.policy import Policy, Slots
from dynts_batch.kvcache.predictor import ImportancePredictor
from dynts_batch.records import Completion, Request

EVICTING = sorted(POLICIES.keys() - {"full"})


@pytest.fixture(scope="module")
def model(tiny_model_dirs: dict[str, Path]) -> LoadedModel:
    return load_model(ModelConfig(name=str(tiny_model_dirs["qwen2"])))


def make_engine(
    model: LoadedModel, policy: PolicyConfig, max_seqs: int = 4, max_new_tokens: int = 48
) -> Engine:
    made = make_policy(policy)
    torch.manual_seed(0)
    predictor = (
        ImportancePredictor(model.config.hidden_size) if "importance" in made.requires else None
    )
    sampling = SamplingConfig(temperature=0.8, max_new_tokens=max_new_tokens)
    return Engine(
        model, made, predictor, sampling, MemoryConfig(max_seqs=max_seqs, max_prompt_tokens=64)
    )


def requests(count: int = 6) -> list[Request]:
    rng = random.Random(1)
    return [
        Request(
            str(i), prompt_token_ids=[rng.randrange(7, 700) for _ in range(rng.choice((3, 9, 21)))]
        )
        for i in range(count)
    ]


def run(engine: Engine, wanted: list[Request]) -> dict[str, Completion]:
    return {completion.request_id: completion for completion in engine.generate(wanted)}


@dataclass
class Observed:
    """What one eviction did."""

    lanes: list[int]
    kept_slots: torch.Tensor


@pytest.fixture
def evictions(monkeypatch: pytest.MonkeyPatch) -> list[Observed]:
    """Every eviction of the arenas that this test makes."""
    seen: list[Observed] = []
    evict = KVArena.evict

    def observe(self: KVArena, lanes: list[int], kept_slots: torch.Tensor) -> None:
        seen.append(Observed(lanes, kept_slots.clone()))
        evict(self, lanes, kept_slots)

    monkeypatch.setattr(KVArena, "evict", observe)
    return seen


@pytest.mark.parametrize("name", EVICTING)
def test_a_budget_that_is_never_reached_equals_full(name: str, model: LoadedModel) -> None:
    full = run(make_engine(model, PolicyConfig(name="full")), requests())
    bounded = run(
        make_engine(model, PolicyConfig(name=name, budget=100, window_size=8)), requests()
    )
    for request_id, completion in full.items():
        assert bounded[request_id].completion_token_ids == completion.completion_token_ids


@pytest.mark.parametrize("name", EVICTING)
def test_a_row_does_not_depend_on_its_batch_mates(name: str, model: LoadedModel) -> None:
    policy = PolicyConfig(name=name, budget=40, window_size=8, keep_ratio=0.4)
    together = run(make_engine(model, policy, max_seqs=4), requests())
    alone = run(make_engine(model, policy, max_seqs=1), requests())
    assert {k: c.completion_token_ids for k, c in together.items()} == {
        k: c.completion_token_ids for k, c in alone.items()
    }
    assert any(completion.num_evictions > 0 for completion in together.values())


@pytest.mark.parametrize("name", EVICTING)
@pytest.mark.parametrize("protect_prompt", [True, False])
def test_counts_are_exact_and_kept_slots_ascending_unique_and_protected(
    name: str, protect_prompt: bool, model: LoadedModel, evictions: list[Observed]
) -> None:
    budget, window, keep_ratio, prompt_tokens = 40, 8, 0.4, 13
    policy = PolicyConfig(
        name=name,
        budget=budget,
        window_size=window,
        keep_ratio=keep_ratio,
        protect_prompt=protect_prompt,
    )
    engine = make_engine(model, replace(policy), max_seqs=1)
    num_first = make_policy(policy).num_protected_first(prompt_tokens)
    completion = run(engine, [Request("a", prompt_token_ids=list(range(10, 10 + prompt_tokens)))])[
        "a"
    ]
    num_candidates = budget - num_first - window
    retained_len = num_first + window + int(num_candidates * keep_ratio)
    processed = (
        prompt_tokens + completion.completion_tokens - 1
    )  # the last of them evicts nothing any more
    assert (
        completion.num_evictions
        == len(evictions)
        == 1 + (processed - 1 - budget) // (budget - retained_len)
    )
    assert completion.evicted_tokens == completion.num_evictions * (budget - retained_len)
    assert completion.peak_cache_len == budget
    for observed in evictions:
        rows = observed.kept_slots.flatten(0, -2)
        assert rows.shape[-1] == retained_len
        assert (rows.diff(dim=-1) > 0).all(), "ascending and unique"
        protected = [*range(num_first), *range(budget - window, budget)]
        assert all(set(protected) <= set(row.tolist()) for row in rows)


@pytest.mark.parametrize("name", EVICTING)
def test_the_same_slots_give_the_same_scores(name: str) -> None:
    policy = make_policy(PolicyConfig(name=name, budget=40, window_size=8))
    slots = make_slots(policy)
    first, second = policy.score(slots), policy.score(slots)
    assert torch.equal(first, second)
    assert first.expand_as(slots.positions).shape == slots.positions.shape


def make_slots(policy: Policy, rows: int = 3) -> Slots:
    torch.manual_seed(0)
    shape = (rows, 2, 3, 40) if policy.per_head else (rows, 1, 1, 40)
    return Slots(
        positions=torch.rand(shape).argsort(dim=-1).int().sort(dim=-1).values,
        columns={name: torch.rand(shape) for name in policy.requires},
        cache_len=torch.full((rows,), 40),
        seq_len=torch.tensor([40, 55, 70])[:rows],
        keys=torch.arange(rows),
    )


def test_window_keeps_the_newest_and_streaming_also_the_sinks() -> None:
    """Plain references: the score is the age."""
    window = make_policy(PolicyConfig(name="window", budget=40, window_size=8))
    slots = make_slots(window)
    assert window.score(slots)[0, 0, 0].argsort(descending=True).tolist() == list(range(39, -1, -1))
    streaming = make_policy(
        PolicyConfig(
            name="streaming",
            budget=40,
            window_size=8,
            protect_prompt=False,
            options={"num_sink_tokens": 5},
        )
    )
    assert streaming.num_protected_first(prompt_tokens=20) == 5


def test_dynts_scores_are_the_predicted_importance() -> None:
    policy = make_policy(PolicyConfig(name="dynts", budget=40, window_size=8))
    slots = make_slots(policy)
    assert torch.equal(policy.score(slots), slots.columns["importance"])


def test_random_draws_differ_by_sequence_eviction_layer_head_and_token_and_are_uniform() -> None:
    policy = make_policy(PolicyConfig(name="random", budget=40, window_size=8))
    slots = make_slots(policy)
    scores = policy.score(slots)
    assert len(scores.unique()) == scores.numel()
    later = policy.score(replace(slots, seq_len=slots.seq_len + 1))
    assert (scores != later).all()
    many = policy.score(
        replace(make_slots(policy), positions=torch.arange(3 * 2 * 3 * 40).view(3, 2, 3, 40))
    )
    assert abs(many.mean().item() - 0.5) < 0.05


def test_the_answer_is_protected_as_long_as_a_candidate_is_left() -> None:
    policy = make_policy(PolicyConfig(name="dynts", budget=100, window_size=10))
    assert policy.num_protected_last(answer_tokens=0, num_free=80) == 10
    assert policy.num_protected_last(answer_tokens=60, num_free=80) == 60
    assert policy.num_protected_last(answer_tokens=80, num_free=80) == 10


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            PolicyConfig(name="dints", budget=40),
            "policy.name must be one of .*dynts.*, got 'dints'",
        ),
        (PolicyConfig(name="window"), "policy.budget is required"),
        (PolicyConfig(name="window", budget=0, window_size=0), "policy.window_size must be"),
        (
            PolicyConfig(name="window", budget=40, window_size=8, keep_ratio=float("nan")),
            r"policy.keep_ratio in \(0, 1\]",
        ),
        (
            PolicyConfig(name="window", budget=40, window_size=40),
            "policy.window_size must be smaller",
        ),
        (
            PolicyConfig(name="streaming", budget=12, window_size=8),
            "policy.window_size must be smaller",
        ),
        (
            PolicyConfig(name="streaming", budget=40, window_size=8, options={"num_sinks": 4}),
            "unknown config key policy.num_sinks",
        ),
        (
            PolicyConfig(
                name="streaming", budget=40, window_size=8, options={"num_sink_tokens": "four"}
            ),
            "must be of type int",
        ),
        (
            PolicyConfig(
                name="streaming", budget=40, window_size=8, options={"num_sink_tokens": -1}
            ),
            "at least 0",
        ),
    ],
)
def test_a_wrong_policy_is_refused_by_name_rule_and_value(
    config: PolicyConfig, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        make_policy(config)


def test_a_policy_can_be_added_from_outside_the_package(model: LoadedModel) -> None:
    @register("oldest")
    @dataclass(frozen=True)
    class Oldest(Policy):
        def score(self, slots: Slots) -> torch.Tensor:
            return -slots.positions.float()

    try:
        completion = run(
            make_engine(model, PolicyConfig(name="oldest", budget=40, window_size=8)), requests(1)
        )["0"]
        assert completion.num_evictions > 0
    finally:
        del POLICIES["oldest"]
