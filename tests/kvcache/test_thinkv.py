"""ThinKV: which segments lose how many tokens equals a plain reference,
over whole lives of random sequences."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from cluster_reference import slow_representatives
from hypothesis import given, settings
from hypothesis import strategies as st

from dynts_batch.config import PolicyConfig
from dynts_batch.errors import ConfigError
from dynts_batch.kvcache import arena as arena_module
from dynts_batch.kvcache.arena import KVArena
from dynts_batch.kvcache.arena_shape import ArenaShape, Column
from dynts_batch.kvcache.compaction import ascending
from dynts_batch.kvcache.layer_states import AttentionRule
from dynts_batch.kvcache.policies import make_policy
from dynts_batch.kvcache.policies.thinkv.policy import ThinKV
from dynts_batch.kvcache.policies.thinkv.thoughts import (
    EXECUTION,
    REASONING,
    TRANSITION,
    Thoughts,
    sparsity,
)
from dynts_batch.kvcache.recorders import RECORDERS
from dynts_batch.kvcache.view import Row, Slots

LAYERS, KV_HEADS, GROUP, HEAD_DIM = 2, 2, 2, 4


def make_thinkv(
    budget: int,
    window_size: int,
    segment_size: int | None,
    *,
    quantize: bool = False,
    **options: object,
) -> ThinKV:
    options |= {"segment_size": segment_size}
    config = PolicyConfig("thinkv", budget, window_size, quantize=quantize, options=options)
    policy = make_policy(config)
    assert isinstance(policy, ThinKV)
    return policy


def columns_of(policy: ThinKV) -> tuple[Column, ...]:
    return tuple(RECORDERS[name].column for name in policy.requires)


@dataclass
class Life:
    """One sequence in an arena of its own, as the engine would drive it,
    with random keys and given types of thoughts."""

    policy: ThinKV
    prompt_tokens: int
    types: list[int]
    num_processed: int = 0
    cache_len: int = 0
    peak: int = 0
    answer_tokens: int = 0
    arena: KVArena = field(init=False)

    def __post_init__(self) -> None:
        policy = self.policy
        shape = ArenaShape(
            *(LAYERS, KV_HEADS, HEAD_DIM, torch.float32),
            per_head=policy.per_head,
            columns=columns_of(policy),
            num_queries=1,
            num_query_heads=KV_HEADS * GROUP,
        )
        self.arena = KVArena(shape, 1, policy.capacity(0, 0), torch.device("cpu"))
        self.store(self.prompt_tokens)

    def store(self, count: int) -> None:
        lanes, slots = torch.tensor([0]), torch.arange(self.cache_len, self.cache_len + count)[None]
        assert self.cache_len + count <= self.arena.capacity, "the memory promise"
        positions = torch.arange(self.num_processed, self.num_processed + count)[None]
        self.arena.write_column("positions", lanes, slots, positions)
        self.arena.write_column("thought", lanes, slots, torch.full_like(slots, REASONING))
        for layer in range(LAYERS):
            keys, _ = self.arena.stored(layer, 1, self.arena.capacity)
            keys[0, :, slots[0]] = torch.randn(KV_HEADS, count, HEAD_DIM)
        if "importance" in self.arena.columns:
            self.arena.write_column("importance", lanes, slots, torch.rand(1, count))
        self.num_processed += count
        self.cache_len += count
        self.peak = max(self.peak, self.cache_len)

    def go_on(self) -> None:
        """Store tokens until the policy is to look."""
        look_at = self.policy.next_look(
            prompt_tokens=self.prompt_tokens, num_processed=self.num_processed
        )
        self.store(min(look_at - self.num_processed, self.arena.capacity - self.cache_len))

    def look(self) -> bool:
        """Whether the policy, asked now, evicted something."""
        size = self.policy.segment_len
        if (self.num_processed - self.prompt_tokens) % size == 0:
            kind = self.types[(self.num_processed - self.prompt_tokens) // size - 1]
            newest = slice(self.cache_len - size, self.cache_len)
            self.arena.columns["thought"][0, :, :, newest] = kind
        slots = self.slots()
        stays = self.policy.stays(slots)
        (retained_len,) = stays.sum(dim=-1).unique().tolist()
        if retained_len == self.cache_len:
            return False
        (row,) = slots.rows
        assert stays[..., : row.num_first].all()
        assert stays[..., self.cache_len - row.num_last : self.cache_len].all()
        assert not stays[..., self.cache_len :].any()
        self.arena.evict([0], ascending(stays, retained_len), [retained_len])
        self.cache_len = retained_len
        return True

    def slots(self) -> Slots:
        counts = self.policy.counts(
            prompt_tokens=self.prompt_tokens,
            answer_tokens=self.answer_tokens,
            cache_len=self.cache_len,
        )
        return Slots(
            arena=self.arena,
            rows=[Row(0, self.cache_len, self.num_processed + 1, *counts, rng_key=0)],
            rules={layer: AttentionRule(0.7, None, None) for layer in range(LAYERS)},
            token_text=str,
        )

    def sizes(self) -> list[int]:
        """Stored tokens of each segment so far: the same in all layers and heads, or this fails."""
        size = self.policy.segment_len
        num_segments = -(-(self.num_processed - self.prompt_tokens) // size)
        places = self.arena.positions[0, ..., : self.cache_len].flatten(0, -2)
        counts = [
            [sum((p - self.prompt_tokens) // size == j for p in place) for j in range(num_segments)]
            for place in places.tolist()
        ]
        assert all(count == counts[0] for count in counts)
        assert places[:, : self.prompt_tokens].tolist() == [[*range(self.prompt_tokens)]] * len(
            places
        )
        return counts[0]


@dataclass
class Segment:
    kind: int
    size: int = 0
    steps_owed: int = 0


class Reference:
    """The definition in the paper of ThinKV (arXiv 2510.01290), a token and a step at a time."""

    def __init__(self, budget: int, window: int, size: int, prompt: int, types: list[int]) -> None:
        self.budget, self.window, self.size, self.prompt = budget, window, size, prompt
        self.types, self.segments, self.written, self.has_lost = types, [], 0, False

    @property
    def cache_len(self) -> int:
        return self.prompt + sum(segment.size for segment in self.segments)

    def store(self) -> None:
        if self.written % self.size == 0:
            self.segments.append(Segment(self.types[len(self.segments)]))
        self.segments[-1].size += 1
        self.written += 1
        ends = self.written % self.size == 0
        if ends and self.segments[-1].kind == TRANSITION:
            for segment in self.segments[:-1]:
                segment.steps_owed += 1
        if not self.has_lost and self.cache_len < self.budget:
            return
        if not self.has_lost or ends:
            self.evict(self.size - self.written % self.size)

    def evict(self, room: int) -> None:
        before = self.cache_len
        free = [s for number, s in enumerate(self.segments) if not self.is_protected(number)]
        for segment in self.segments:
            while segment.steps_owed > 0:
                segment.steps_owed -= 1
                if segment in free:
                    self.step_down(segment)
        while self.cache_len > self.budget - room:
            able = [s for s in free if s.size > 4]
            if able:
                self.step_down(self.least(able))
                continue
            able = [s for s in free if s.size > 0]
            if not able:
                break
            self.least(able).size = 0
        self.has_lost = self.has_lost or self.cache_len < before

    def is_protected(self, number: int) -> bool:
        """The segment being written, and those that hold one of the newest `window` tokens."""
        end = (number + 1) * self.size
        return end > self.written or end > self.written - self.window

    @staticmethod
    def least(segments: list[Segment]) -> Segment:
        for kind in (TRANSITION, EXECUTION, REASONING):
            for segment in segments:
                if segment.kind == kind:
                    return segment
        raise AssertionError(segments)

    @staticmethod
    def step_down(segment: Segment) -> None:
        for size in (64, 32, 16, 8, 4):
            if size < segment.size:
                segment.size = size
                return


types_of_thoughts = st.lists(
    st.sampled_from([TRANSITION, REASONING, EXECUTION]), min_size=30, max_size=30
)


@settings(max_examples=60)
@given(
    types=types_of_thoughts,
    segment_size=st.sampled_from([5, 8, 20]),
    window_size=st.sampled_from([0, 3, 20]),
    prompt_tokens=st.integers(1, 12),
    spare=st.integers(0, 120),
)
def test_sizes_of_segments_equal_a_plain_reference_at_every_step(
    types: list[int], segment_size: int, window_size: int, prompt_tokens: int, spare: int
) -> None:
    in_window = -(-window_size // segment_size)
    budget = prompt_tokens + (1 + in_window) * segment_size + spare
    policy = make_thinkv(budget, window_size, segment_size)
    assert policy.longest_prompt(0) == prompt_tokens + spare
    life = Life(policy, prompt_tokens, types)
    reference = Reference(budget, window_size, segment_size, prompt_tokens, types)
    while reference.written < (len(types) - 1) * segment_size:
        life.go_on()
        life.look()
        while reference.written + prompt_tokens < life.num_processed:
            reference.store()
        assert life.sizes() == [segment.size for segment in reference.segments]
    assert life.peak <= budget


def test_32k_tokens_stay_within_a_budget_of_1024_and_old_thoughts_go_entirely() -> None:
    generator = torch.Generator().manual_seed(0)
    types = torch.randint(0, 3, (260,), generator=generator).tolist()
    life = Life(make_thinkv(1024, 128, 128), 60, types)
    num_looks = num_evictions = 0
    while life.num_processed < 32_768:
        life.go_on()
        num_looks, num_evictions = num_looks + 1, num_evictions + life.look()
    assert life.peak == 1024
    sizes = life.sizes()
    assert 0 in sizes
    assert all(size in (0, 4, 8, 16, 32, 64, 128) for size in sizes[:-1])
    reasoning = [size for size, kind in zip(sizes, types, strict=False) if kind == REASONING]
    others = [size for size, kind in zip(sizes, types, strict=False) if kind == TRANSITION]
    assert sum(map(bool, reasoning)) > 3 * sum(map(bool, others)), "reasoning goes last"
    assert num_evictions <= num_looks <= 1 + (life.num_processed - 60) // 128


def test_survivors_are_the_representatives_of_each_layers_keys_heads_together() -> None:
    torch.manual_seed(1)
    life = Life(make_thinkv(60, 0, 20), 4, [REASONING] * 9)
    while life.cache_len < 60:
        life.go_on()
    slots = life.slots()
    stays = life.policy.stays(slots)
    # 56 thinking tokens; 4 more are to be written in the third segment:
    # the first goes from 20 to 16.
    for number in range(LAYERS):
        keys = slots.layer(number).keys[0, :, 4:24].transpose(0, 1).flatten(1).double().tolist()
        kept = stays[0, number, 0, 4:24].nonzero().flatten().tolist()
        assert kept == slow_representatives(keys, 16)
    assert not torch.equal(stays[:, 0], stays[:, 1])


def test_of_quantised_keys_only_what_is_cut_is_dequantised_a_layer_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All layers of all rows that were looked at were, whole lanes:
    as much again as a plain arena."""
    torch.manual_seed(3)
    num_layers, budget, lengths = 5, 256, (100, 256, 180)
    policy = make_thinkv(budget, 0, 32, quantize=True)
    shape = ArenaShape(
        *(num_layers, KV_HEADS, 16, torch.float32),
        per_head=True,
        columns=columns_of(policy),
        stored_in=policy.stored_in,
    )
    arena, lanes = KVArena(shape, 4, budget, torch.device("cpu")), torch.tensor([3, 1, 2])
    states = torch.randn(num_layers, 2, 3, KV_HEADS, budget, 16)
    for layer in range(num_layers):
        arena.write_prompt(layer, lanes, torch.tensor(lengths), *states[layer])
    slot = torch.arange(budget).expand(3, -1)
    arena.write_column("positions", lanes, slot, slot)
    arena.write_column("thought", lanes, slot, torch.full_like(slot, REASONING))
    rows = []
    for lane, length in zip(lanes.tolist(), lengths, strict=True):
        counts = policy.counts(prompt_tokens=4, answer_tokens=0, cache_len=length)
        rows.append(Row(lane, length, length + 1, *counts, rng_key=0))
    rules = {layer: AttentionRule(0.7, None, None) for layer in range(num_layers)}
    slots = Slots(arena, rows, rules, str)
    expected = policy.stays(slots)
    assert expected[:, 0, 0].sum(dim=-1).tolist() == [100, 240, 180]
    assert not torch.equal(expected[1, 0], expected[1, 1]), "each layer keeps its own"

    found, read = [], KVArena.keys_in_place

    def measured(*args: Any) -> Iterator[tuple[list[torch.Tensor], torch.Tensor]]:
        for keys, where in read(*args):
            found.append([states.shape for states in keys])
            yield keys, where

    monkeypatch.setattr(arena_module, "COPIED_BYTES", 1)
    monkeypatch.setattr(KVArena, "keys_in_place", measured)
    assert torch.equal(policy.stays(slots), expected)
    cut_slots = int((~expected[1, 0, 0]).nonzero().max()) + 1
    assert len(found) == num_layers
    for ((num_rows, _, num_slots, _),) in found:
        assert num_rows == 1
        assert cut_slots <= num_slots < cut_slots + 32


def test_the_hybrid_keeps_the_most_important_tokens_of_a_segment_in_all_layers() -> None:
    torch.manual_seed(1)
    life = Life(make_thinkv(60, 0, 20, survivors="importance"), 4, [REASONING] * 9)
    while life.cache_len < 60:
        life.go_on()
    slots = life.slots()
    kept = life.policy.stays(slots)[0, 0, 0, 4:24].nonzero().flatten().tolist()
    importance = slots.column("importance")[0, 0, 0, 4:24]
    assert kept == sorted(importance.argsort(descending=True)[:16].tolist())
    assert life.look()
    assert life.sizes() == [16, 20, 16]


def test_a_segment_is_labelled_as_it_ends_by_the_newest_querys_sparsity_in_the_layers() -> None:
    torch.manual_seed(2)
    life = Life(make_thinkv(60, 0, 10), 4, [])
    life.store(20)
    for layer in range(LAYERS):
        query = torch.randn(1, KV_HEADS * GROUP, 1, HEAD_DIM)
        life.arena.write_queries(layer, torch.tensor([0]), torch.tensor([[23]]), 9 * query)
    slots = life.slots()
    mean = sum(sparsity(slots.layer(n).logits(1)[..., :24])[0, 0].item() for n in range(2)) / 2
    assert 0 < mean < 1
    for low, high, kind in ((0.0, 1.0, REASONING), (0.0, 0.0, TRANSITION), (1.0, 1.0, EXECUTION)):
        known = replace(slots, companions=[Thoughts((0, 1), low, high)])
        column = life.policy.relabel(known)["thought"]
        assert column is not None
        assert (column[0, ..., 14:24] == kind).all(), "the segment that ended"
        assert (column[0, ..., 4:14] == REASONING).all(), "labels never change"
    assert not life.policy.relabel(slots), "one type of thought: nothing to tell apart"
    life.store(1)
    between = replace(life.slots(), companions=[Thoughts((0, 1), 0.0, 0.0)])
    assert torch.equal(life.policy.relabel(between)["thought"], between.column("thought"))


def test_the_answer_is_protected_as_long_as_a_segment_fits_besides() -> None:
    policy = make_thinkv(100, 0, 10)
    assert policy.counts(prompt_tokens=20, answer_tokens=60, cache_len=95).last == 60
    assert policy.counts(prompt_tokens=20, answer_tokens=61, cache_len=95).last == 0


@pytest.mark.parametrize(
    ("budget", "options", "message"),
    [
        (100, {"survivors": "newest"}, "must be one of kmeans, importance, got 'newest'"),
        (100, {"segment_size": 0}, "segment_size must be at least 1"),
        (100, {"segment_size": "8"}, "must be of type int or null, got '8'"),
        (100, {"segment_size": 60}, "room for the window's segments"),
    ],
)
def test_a_wrong_thinkv_is_refused(budget: int, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_policy(PolicyConfig("thinkv", budget, 8, options=options))


def test_without_a_size_a_segment_is_the_papers_or_an_eighth_of_the_budget() -> None:
    assert (
        make_thinkv(5000, 128, None).segment_len == make_thinkv(1024, 128, None).segment_len == 128
    )
    assert make_thinkv(240, 32, None).segment_len == 30
