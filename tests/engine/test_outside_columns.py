"""A column from outside the package comes with its policy: no file of the package is touched."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from dynts_batch.config import MemoryConfig, ModelConfig, PolicyConfig, SamplingConfig
from dynts_batch.engine import Engine
from dynts_batch.engine.attention import native as native_attention
from dynts_batch.engine.decoding import recorded_steps
from dynts_batch.engine.decoding.recorded_steps import RecordedSteps
from dynts_batch.errors import ConfigError
from dynts_batch.kvcache.native import can_run
from dynts_batch.kvcache.policies import POLICIES, make_policy
from dynts_batch.kvcache.recorders import RECORDERS, register
from dynts_batch.records import Request

MODULE = '''
from dataclasses import dataclass
from typing import ClassVar

import torch

from dynts_batch.kvcache.arena_shape import Column
from dynts_batch.kvcache.policy import HeadwisePolicy
from dynts_batch.kvcache.recorders import register
from dynts_batch.kvcache.recorders.recorder import Recorder


@register
class KeyNorm(Recorder):
    """The length of each key as it is stored, for each layer and KV head."""

    column = Column("key_norm", per_head=True)

    def observe(self, tokens, states):
        norms = states.key.norm(dim=-1)
        self.arena.write_layer("key_norm", states.layer, tokens.lanes, tokens.slots, norms)


@register
class StateNorm(Recorder):
    """The length of each token's final hidden state."""

    column = Column("state_norm")

    def end(self, tokens, hidden_states):
        self.write(tokens, hidden_states.norm(dim=-1))


@register
class Survived(Recorder):
    """How many evictions each token has survived."""

    column = Column("survived")

    def begin(self, tokens):
        self.write(tokens, torch.zeros_like(tokens.slots))


@dataclass(frozen=True)
class ShortKeys(HeadwisePolicy):
    """Keeps the shortest keys, as knorm does, without reading keys."""

    requires = ("key_norm", "state_norm", "survived")
    seen: ClassVar[list] = []

    def relabel(self, slots):
        return {"survived": slots.column("survived") + 1}

    def score(self, slots):
        columns = slots.column("state_norm"), slots.column("survived")
        self.seen.append((slots.rows, slots.positions, *columns))
        scores = -slots.column("key_norm")
        return scores.mean(dim=(1, 2), keepdim=True) if self.shared_index else scores
'''
REQUESTS = [Request(str(i), prompt_token_ids=list(range(10, 14 + 3 * i))) for i in range(5)]


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "my_columns.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(recorded_steps, "RECORD_AFTER", 3)
    yield "my_columns:ShortKeys"
    POLICIES.pop("my_columns:ShortKeys", None)
    for name in ("key_norm", "state_norm", "survived"):
        RECORDERS.pop(name, None)
    sys.modules.pop("my_columns", None)


def make_engine(folder: Path, name: str, *, shared_index: bool) -> Engine:
    options = {"shared_index": shared_index}
    return Engine.load(
        ModelConfig(name=str(folder)),
        PolicyConfig(name, budget=28, window_size=6, keep_ratio=0.6, options=options),
        SamplingConfig(temperature=0.9, max_new_tokens=44),
        MemoryConfig(max_seqs=3),
    )


def generate(engine: Engine) -> dict[str, tuple[int, ...]]:
    completions = list(engine.generate(REQUESTS))
    assert max(completion.num_evictions for completion in completions) >= 3
    return {c.request_id: c.completion_token_ids for c in completions}


@pytest.mark.parametrize("shared_index", [False, True])
def test_it_is_recorded_for_each_layer_and_head_and_moves_with_its_token(
    shared_index: bool, outside: str, tiny_model_dirs: dict[str, Path]
) -> None:
    """By keys' lengths when they were written the policy chooses what knorm chooses by the stored
    keys, with and without recorded steps, and whether or not heads keep the same tokens."""
    folder = tiny_model_dirs["llama"]
    expected = generate(make_engine(folder, "knorm", shared_index=shared_index))
    engine = make_engine(folder, outside, shared_index=shared_index)
    assert generate(engine) == expected
    check_seen()
    steps = engine._runner.graphs
    if can_run(native_attention.SOURCE, torch.float32, torch.device("cpu"), 16):
        assert isinstance(steps, RecordedSteps)
        assert 3 in steps._recorded
        engine._runner.graphs = None
        assert generate(engine) == expected
        check_seen()


def check_seen() -> None:
    """What a token had is what it has for good, in all layers and heads that keep it;
    and every eviction was counted."""
    norms: dict[tuple[int, int], float] = {}
    num_survived: dict[tuple[int, int], int] = {}
    num_checked, seen = 0, sys.modules["my_columns"].ShortKeys.seen
    for rows, positions, states, survived in seen:
        for number, row in enumerate(rows):
            live = [
                x[number, ..., : row.cache_len].flatten().tolist()
                for x in (positions, states, survived)
            ]
            for position, norm, count in zip(*live, strict=True):
                token = row.rng_key, position
                num_checked += token in norms
                assert 0 < norm == pytest.approx(norms.setdefault(token, norm), rel=1e-5)
                assert count >= num_survived.get(token, 1)
                num_survived[token] = count
    seen.clear()
    assert num_checked > 500
    assert max(num_survived.values()) >= 3


def test_its_bytes_are_part_of_the_memory_promise(
    outside: str, tiny_model_dirs: dict[str, Path]
) -> None:
    folder = tiny_model_dirs["llama"]
    plain = make_engine(folder, "knorm", shared_index=True).arena
    arena = make_engine(folder, outside, shared_index=True).arena
    layers, heads = arena.shape.num_layers, arena.shape.num_kv_heads
    assert arena.columns["key_norm"].shape == (3, layers, heads, 28)
    assert arena.columns["state_norm"].shape == (3, 1, 1, 28)
    num_bytes = sum(column.nbytes for column in arena.columns.values())
    assert arena.num_bytes - plain.num_bytes == num_bytes == 4 * 3 * 28 * (layers * heads + 2)


def test_a_columns_name_is_taken_once(outside: str) -> None:
    make_policy(PolicyConfig(outside, budget=36, window_size=6))
    with pytest.raises(ConfigError, match="got 'key_norm' again"):
        register(RECORDERS["key_norm"])
