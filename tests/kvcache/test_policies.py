"""The laws every policy obeys, over the whole registry, through the engine itself."""

import random
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from policy_kinds import EVICTING, one_of_each_kind
from policy_references import HEADWISE, SHARED, kept, reference_scores
from policy_slots import CAPACITY, make_slots

from dynts_batch.config import MemoryConfig, ModelConfig, PolicyConfig, SamplingConfig
from dynts_batch.engine import Engine
from dynts_batch.engine.model.loader import LoadedModel, load_model
from dynts_batch.engine.model.resolved import resolve_model
from dynts_batch.errors import ConfigError
from dynts_batch.kvcache import policies
from dynts_batch.kvcache.arena import KVArena
from dynts_batch.kvcache.arena_shape import ArenaShape
from dynts_batch.kvcache.policies import POLICIES, make_policy, register
from dynts_batch.kvcache.policies.cur import CUR
from dynts_batch.kvcache.policies.thinkv.thoughts import Thoughts
from dynts_batch.kvcache.policy import Policy
from dynts_batch.kvcache.predictor import ImportancePredictor
from dynts_batch.kvcache.query_stats import as_numbers
from dynts_batch.kvcache.view import Row, Slots
from dynts_batch.records import Completion, Request

#: Policies that keep by their schedule each time the budget is reached.
BY_SCHEDULE = sorted(set(EVICTING) - {"thinkv"})
#: The paper's schedule, an interval, one longer than there are candidates, and the policy's own.
SCHEDULES: list[dict[str, Any]] = [{"keep_ratio": 0.4}, {"interval": 7}, {"interval": 90}, {}]
#: Every policy under its own schedule, and under another; one that shares what it keeps among all
#: heads, and one that does not, under each; the others in `long`.
SCHEDULED = [
    pytest.param(name, schedule, protects, marks=() if is_short else pytest.mark.long)
    for index, name in enumerate(BY_SCHEDULE)
    for number, schedule in enumerate(SCHEDULES)
    for protects in (True, False)
    for is_short in [
        name in ("dynts", "random")
        or (number == len(SCHEDULES) - 1 and not protects)
        or (number == index % (len(SCHEDULES) - 1) and protects)
    ]
]
#: Of a tiny random model: every type of thought occurs.
THOUGHTS = Thoughts(layers=(0, 2), low=0.3, high=0.5)


@pytest.fixture(scope="module")
def models(tiny_model_dirs: dict[str, Path]) -> dict[str, LoadedModel]:
    """Where a layer has a sliding window, and where layers have sinks too."""
    configs = {name: ModelConfig(name=str(tiny_model_dirs[name])) for name in ("qwen2", "gpt_oss")}
    return {name: load_model(resolve_model(config)) for name, config in configs.items()}


@pytest.fixture(scope="module")
def model(models: dict[str, LoadedModel]) -> LoadedModel:
    return models["qwen2"]


@pytest.fixture(scope="module")
def full(model: LoadedModel) -> dict[str, Completion]:
    return run(make_engine(model, PolicyConfig(name="full")), requests())


def make_engine(
    model: LoadedModel,
    policy: PolicyConfig,
    max_seqs: int = 4,
    max_new_tokens: int = 48,
    thoughts: Thoughts = THOUGHTS,
) -> Engine:
    made = make_policy(policy)
    torch.manual_seed(0)
    predictor = ImportancePredictor(model.config.hidden_size, "state+place")
    sampling = SamplingConfig(temperature=0.8, max_new_tokens=max_new_tokens)
    memory = MemoryConfig(max_seqs=max_seqs, max_prompt_tokens=64)
    return Engine(model, made, sampling, memory, [predictor, thoughts])


def requests(count: int = 6) -> list[Request]:
    rng = random.Random(1)
    return [
        Request(
            str(i), prompt_token_ids=[rng.randrange(7, 700) for _ in range(rng.choice((3, 9, 15)))]
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

    def observe(
        self: KVArena, lanes: list[int], kept_slots: torch.Tensor, retained_len: list[int]
    ) -> None:
        seen.append(Observed(lanes, kept_slots.clone()))
        evict(self, lanes, kept_slots, retained_len)

    monkeypatch.setattr(KVArena, "evict", observe)
    return seen


@pytest.mark.parametrize("name", EVICTING)
def test_a_budget_that_is_never_reached_equals_full(
    name: str, model: LoadedModel, full: dict[str, Completion]
) -> None:
    bounded = run(
        make_engine(model, PolicyConfig(name=name, budget=100, window_size=8)), requests()
    )
    for request_id, completion in full.items():
        assert bounded[request_id].completion_token_ids == completion.completion_token_ids


@pytest.mark.parametrize("name", EVICTING)
def test_a_choice_does_not_depend_on_the_rows_beside_it(name: str) -> None:
    policy = make_policy(PolicyConfig(name=name, budget=CAPACITY, window_size=8))
    slots = make_slots(policy)
    stays = policy.stays(slots)
    for index, row in enumerate(slots.rows):
        assert torch.equal(policy.stays(replace(slots, rows=[row]))[0], stays[index])


@pytest.mark.parametrize("architecture", ["gpt_oss", pytest.param("qwen2", marks=pytest.mark.long)])
@pytest.mark.parametrize("name", one_of_each_kind())
def test_a_row_does_not_depend_on_its_batch_mates(
    name: str, architecture: str, models: dict[str, LoadedModel]
) -> None:
    """One that is there from the beginning, and one that takes the lane of another."""
    policy = PolicyConfig(name=name, budget=33, window_size=6, keep_ratio=0.4)
    together, alone = (
        make_engine(models[architecture], policy, max_seqs, max_new_tokens=36)
        for max_seqs in (4, 1)
    )
    among_others = run(together, requests())
    some = [requests()[index] for index in (0, 5)]
    for request_id, completion in run(alone, some).items():
        assert completion.completion_token_ids == among_others[request_id].completion_token_ids
        assert completion.num_evictions == among_others[request_id].num_evictions > 0


@pytest.mark.parametrize("survivors", ["kmeans", "importance"])
def test_of_thoughts_that_cannot_be_told_apart_nothing_is_recorded(
    survivors: str, model: LoadedModel
) -> None:
    """A calibration without layers cost every step a query and a column, and its recording; the
    rows are those of a calibration that finds reasoning only."""
    policy = PolicyConfig("thinkv", budget=40, window_size=8, options={"survivors": survivors})
    plain, told = (
        make_engine(model, policy, thoughts=thoughts)
        for thoughts in (Thoughts(), Thoughts(layers=(0, 2), low=0.0, high=1.0))
    )
    assert set(told.arena.columns) - set(plain.arena.columns) == {"thought"}
    assert (plain.arena.shape.num_queries, told.arena.shape.num_queries) == (0, 1)
    expected = run(told, requests())
    assert {k: c.completion_token_ids for k, c in run(plain, requests()).items()} == {
        k: c.completion_token_ids for k, c in expected.items()
    }
    assert any(completion.num_evictions > 0 for completion in expected.values())


@pytest.mark.parametrize(("name", "schedule", "protect_prompt"), SCHEDULED)
def test_counts_are_exact_and_kept_slots_ascending_unique_and_protected(
    name: str,
    schedule: dict[str, Any],
    protect_prompt: bool,
    model: LoadedModel,
    evictions: list[Observed],
) -> None:
    budget, window, prompt_tokens = 40, 8, 13
    policy = PolicyConfig(
        name=name,
        budget=budget,
        window_size=window,
        protect_prompt=protect_prompt,
        **schedule,
    )
    engine = make_engine(model, replace(policy), max_seqs=1)
    num_first = make_policy(policy).num_protected_first(prompt_tokens)
    completion = run(engine, [Request("a", prompt_token_ids=list(range(10, 10 + prompt_tokens)))])[
        "a"
    ]
    num_candidates = budget - num_first - window
    interval = schedule.get("interval") or make_policy(policy).default_interval
    num_evicted = min(interval, num_candidates)
    if "keep_ratio" in schedule:
        num_evicted = num_candidates - int(num_candidates * schedule["keep_ratio"])
    retained_len = budget - num_evicted
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
def test_the_same_slots_give_the_same_choice_which_keeps_what_is_protected(name: str) -> None:
    policy = make_policy(PolicyConfig(name=name, budget=40, window_size=8))
    slots = make_slots(policy)
    first, second = policy.stays(slots), policy.stays(slots)
    assert torch.equal(first, second)
    stays = first.expand_as(slots.positions)
    assert (stays | slots.is_candidate[:, None, None]).all()
    assert len(stays.sum(dim=-1).flatten(1).unique(dim=1).T) == 1, "as many in every layer and head"
    assert not stays.all()


#: Options under which a policy has another reference, by the name of that reference.
VARIANTS: dict[str, tuple[str, dict[str, object]]] = {
    name: (name, {}) for name in BY_SCHEDULE if name != "h2o"
} | {"h2o-last": ("h2o", {"accumulate": False})}


def test_every_policy_has_a_slow_reference() -> None:
    """h2o's own sum has one in tests/engine/test_recording.py, over the steps of a whole run,
    thinkv one in test_thinkv.py."""
    assert {name for name, _ in VARIANTS.values()} | {"h2o", "thinkv"} == set(EVICTING)
    assert VARIANTS.keys() == HEADWISE.keys() | SHARED.keys()


@pytest.mark.parametrize("shared_index", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_what_is_kept_equals_the_slow_reference(variant: str, shared_index: bool) -> None:
    """With groups of query heads, gaps in the positions, a layer with sinks and a sliding window,
    and repeated keys."""
    name, options = VARIANTS[variant]
    if shared_index:
        if variant in SHARED:
            pytest.skip("all layers and heads share anyway")
        options = options | {"shared_index": True}
    policy = make_policy(PolicyConfig(name=name, budget=CAPACITY, window_size=6, options=options))
    slots = make_slots(policy)
    stays = policy.stays(slots).expand_as(slots.positions)
    for row in range(len(stays)):
        for layer, heads in enumerate(reference_scores(variant, slots, policy, row)):
            for head, expected in enumerate(heads):
                chosen = stays[row, layer, head].nonzero().flatten().tolist()
                assert chosen == kept(slots, row, expected)


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
    assert torch.equal(policy.score(slots), slots.column("importance"))


def test_bottom_keeps_what_dynts_would_drop_first() -> None:
    config = PolicyConfig(name="dynts", budget=40, window_size=8)
    slots = make_slots(make_policy(config))
    bottom = make_policy(replace(config, options={"bottom": True}))
    assert torch.equal(bottom.score(slots), -slots.column("importance"))


def test_a_prompt_inside_the_ratio_loses_its_newest_tokens_as_in_the_reference_code(
    model: LoadedModel, evictions: list[Observed]
) -> None:
    """k = int((L - W) * r) tokens stay besides the window, of the prompt's 37 too,
    which is longer than B - W."""
    options = {"prompt_in_ratio": True}
    policy = PolicyConfig("dynts", budget=40, window_size=8, keep_ratio=0.5, options=options)
    prompt = list(range(10, 10 + 37))
    completion = run(make_engine(model, policy), [Request("a", prompt_token_ids=prompt)])["a"]
    assert completion.num_evictions == len(evictions) > 1
    for observed in evictions:
        assert observed.kept_slots.flatten().tolist() == [*range(16), *range(32, 40)]
    outside_the_ratio = replace(policy, options={})
    refused = run(make_engine(model, outside_the_ratio), [Request("a", prompt_token_ids=prompt)])
    assert refused["a"].error_type == "PromptTooLongError"
    with pytest.raises(ConfigError, match="prompt_in_ratio needs"):
        make_policy(replace(policy, protect_prompt=False))


@pytest.mark.parametrize("unlikeness", [0.0, 0.5])
def test_a_key_unlike_all_others_stays_although_no_foretold_query_wants_it(unlikeness) -> None:
    policy = make_policy(
        PolicyConfig("expected", budget=40, window_size=8, options={"unlikeness": unlikeness})
    )
    slots = make_slots(policy)
    layer = slots.layer(0)
    mean_query = as_numbers(layer.query_stats.mean)[0, 0]
    layer.keys[:, 0, 12] = -30 * mean_query / mean_query.norm()
    layer.query_stats.frequency.zero_()
    layer.query_stats.variance.zero_()
    layer.query_stats.mean[:, 1:] = layer.query_stats.mean[:, :1]
    scores = policy.score_layer(layer)[:, 0]
    rank = (scores > scores[:, 12:13]).sum(dim=-1)
    assert ((rank < slots.num_kept) == (unlikeness > 0)).all()


@pytest.mark.parametrize("name", ["knorm", "cur", "keydiff"])
def test_shared_scores_do_not_depend_on_the_other_rows(name: str) -> None:
    """torch sums a long axis of several rows in another order than that of one."""
    policy = make_policy(
        PolicyConfig(name, budget=200, window_size=8, options={"shared_index": True})
    )
    torch.manual_seed(0)
    arena = KVArena(ArenaShape(28, 2, 16, torch.float32), 4, 200, torch.device("cpu"))
    for layer in range(28):
        states = torch.randn(2, 4, 2, 200, 16)
        arena.write_prompt(layer, torch.arange(4), torch.full((4,), 200), *states)
    counts = policy.counts(prompt_tokens=5, answer_tokens=0, cache_len=200)
    rows = [Row(lane, 200, 201 + lane, *counts, rng_key=lane) for lane in range(4)]

    def scores(given: list[Row]) -> torch.Tensor:
        return policy.score(Slots(arena=arena, rows=given, rules={}, token_text=str))

    together = scores(rows)
    for row in rows:
        assert torch.equal(scores([row])[0], together[row.lane])


def test_random_draws_differ_by_sequence_eviction_layer_head_and_token_and_are_uniform() -> None:
    policy = make_policy(PolicyConfig(name="random", budget=40, window_size=8))
    slots = make_slots(policy)
    scores = policy.score(slots)
    assert len(scores.unique()) == scores.numel()
    later = policy.score(
        replace(slots, rows=[row._replace(seq_len=row.seq_len + 1) for row in slots.rows])
    )
    assert (scores != later).all()
    many = torch.stack([policy.score(make_slots(policy, seed=seed)) for seed in range(10)])
    assert abs(many.mean().item() - 0.5) < 0.05


def test_a_projection_is_gaussian_and_fresh_for_each_sequence_length_and_layer() -> None:
    policy = CUR(budget=40, window_size=8, num_projections=200)
    slots = make_slots(policy)
    first, second = (policy.projection(slots.layer(number)) for number in (0, 1))
    longer = replace(slots, rows=[row._replace(seq_len=row.seq_len + 1) for row in slots.rows])
    drawn = torch.cat([first, second, policy.projection(longer.layer(0))])
    assert len(drawn.unique()) == drawn.numel()
    assert abs(drawn.mean().item()) < 0.05
    assert abs(drawn.std().item() - 1) < 0.05
    assert abs((drawn.abs() > 1.96).float().mean().item() - 0.05) < 0.01


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
            "policy.name must be a policy or .*, got 'dints'. Did you mean dynts.*sepllm",
        ),
        (PolicyConfig(name="window"), "policy.budget is required"),
        (PolicyConfig(name="window", budget=1, window_size=0), "policy.budget must be at least 2"),
        (
            PolicyConfig(
                "expected", budget=64, window_size=8, options={"unlikeness": float("nan")}
            ),
            "policy.unlikeness must be at least 0, got nan",
        ),
        (
            PolicyConfig(
                "rkv", budget=64, window_size=8, options={"similarity_threshold": float("nan")}
            ),
            "policy.similarity_threshold must be a number, got nan",
        ),
        (
            PolicyConfig(name="window", budget=40, window_size=8, keep_ratio=float("nan")),
            r"policy.keep_ratio must be in \(0, 1\]",
        ),
        (
            PolicyConfig(name="window", budget=40, window_size=8, interval=0),
            "policy.interval must be at least 1, got 0",
        ),
        (
            PolicyConfig(name="window", budget=40, window_size=8, keep_ratio=0.4, interval=4),
            "policy.keep_ratio and policy.interval exclude each other, .* got 0.4 and 4",
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


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The policy of the README's guide, in a module of its own; its name."""
    readme = (Path(policies.__file__).parent / "README.md").read_text()
    (module,) = re.findall(r"```python\n(# my_policies.py.*?)```", readme, flags=re.DOTALL)
    (tmp_path / "my_policies.py").write_text(module)
    monkeypatch.syspath_prepend(tmp_path)
    yield "my_policies:Oldest"
    POLICIES.pop("my_policies:Oldest", None)
    sys.modules.pop("my_policies", None)


def test_a_policy_from_outside_the_package_obeys_the_laws(
    outside: str,
    models: dict[str, LoadedModel],
    model: LoadedModel,
    full: dict[str, Completion],
    evictions: list[Observed],
) -> None:
    """The README's guide, step by step, with no file of this package touched."""
    test_a_budget_that_is_never_reached_equals_full(outside, model, full)
    test_a_row_does_not_depend_on_its_batch_mates(outside, "gpt_oss", models)
    evictions.clear()
    test_counts_are_exact_and_kept_slots_ascending_unique_and_protected(
        outside, {"keep_ratio": 0.4}, True, model, evictions
    )
    test_the_same_slots_give_the_same_choice_which_keeps_what_is_protected(outside)
    newest_candidate = CAPACITY - 8 - 1
    assert all(newest_candidate not in observed.kept_slots for observed in evictions)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_policies:Newest", "has no attribute 'Newest'"),
        ("my_policys:Oldest", "No module named 'my_policys'"),
        ("my_policies:dataclass", "which is no Policy"),
        ("my_policies:", "or module:Class, got 'my_policies:'"),
    ],
)
def test_a_policy_that_is_not_there_is_refused(outside: str, name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_policy(PolicyConfig(name=name, budget=40, window_size=8))


def test_a_name_is_registered_once_and_what_no_engine_records_is_refused() -> None:
    with pytest.raises(ConfigError, match="got 'window' again"):
        register("window")(Policy)

    @register("greedy")
    @dataclass(frozen=True)
    class Greedy(Policy):
        requires = ("mood",)

    try:
        with pytest.raises(ConfigError, match=r"must require only .*importance.*, got 'mood'"):
            make_policy(PolicyConfig(name="greedy", budget=400))
    finally:
        del POLICIES["greedy"]
