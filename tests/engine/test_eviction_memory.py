"""What an eviction takes beside the arena: bounded however many sequences come to it in one step,
and no completion changes."""

from typing import Any

import pytest
import torch
from policy_kinds import in_short
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dynts_batch.config import MemoryConfig, ModelConfig, PolicyConfig, SamplingConfig
from dynts_batch.engine import Engine, eviction
from dynts_batch.kvcache import view
from dynts_batch.kvcache.policies import rkv
from dynts_batch.records import Request

NUM_SAMPLES = 6


def make_engine(policy: PolicyConfig) -> Engine:
    sampling = SamplingConfig(temperature=0.8, max_new_tokens=60)
    memory = MemoryConfig(max_seqs=NUM_SAMPLES, max_prompt_tokens=256)
    return Engine.load(ModelConfig(), policy, sampling, memory)


def generate(made: Engine) -> dict[int, tuple[int, ...]]:
    """Samples of one prompt, which reach the budget in the same step."""
    prompt = list(range(10, 40))
    requests = [Request("a", index, prompt_token_ids=prompt) for index in range(NUM_SAMPLES)]
    return {c.sample_index: c.completion_token_ids for c in made.generate(requests)}


@pytest.mark.parametrize("name", in_short(("cur", "expected", "h2o", "thinkv")))
def test_rows_evicted_one_by_one_or_together_give_the_same_completions(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = PolicyConfig(name, budget=64, window_size=8, keep_ratio=0.5)
    together = make_engine(policy)
    assert together._evictor.rows_at_once >= NUM_SAMPLES
    expected = generate(together)
    monkeypatch.setattr(eviction, "EVICTION_BYTES", 1)
    one_by_one = make_engine(policy)
    assert one_by_one._evictor.rows_at_once == 1
    assert generate(one_by_one) == expected


class Peak(TorchDispatchMode):
    """The most bytes that tensors made under it held at once."""

    def __init__(self) -> None:
        super().__init__()
        self.num_bytes, self._alive = 0, {}

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        given = {x.untyped_storage()._cdata for x in tree_leaves((args, kwargs)) if is_tensor(x)}
        for tensor in filter(is_tensor, tree_leaves(result)):
            storage = tensor.untyped_storage()
            if storage._cdata not in given:
                self._alive[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        self._alive = {key: x for key, x in self._alive.items() if not x[0].expired()}
        self.num_bytes = max(self.num_bytes, sum(size for _, size in self._alive.values()))
        return result


def is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, {}) for name in ("dynts", "h2o", "keydiff", "random", "rkv", "snapkv")),
        ("value_aware", {}),
        ("snapkv", {"shared_index": True}),
    ],
)
def test_no_eviction_takes_more_than_its_share(
    name: str, options: dict[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """64 rows of 32,768 slots took 20 to 28 GB, which nothing had planned for."""
    monkeypatch.setattr(rkv, "_CHUNK_BYTES", 2**16)  # which that policy takes whatever the rows are
    monkeypatch.setattr(view, "COPIED_BYTES", {"cpu": 1})  # as do layers that are taken together
    policy = PolicyConfig(name, budget=256, window_size=32, protect_prompt=False, options=options)
    made = make_engine(policy)
    row_bytes = made._evictor._policy.eviction_bytes(made.arena.shape, made.arena.capacity)
    made._evictor.rows_at_once = 2
    peaks = []
    evict = made._evictor._evict_from

    def measured(due: dict[int, Any]) -> None:
        with Peak() as peak:
            evict(due)
        peaks.append(peak.num_bytes)

    monkeypatch.setattr(made._evictor, "_evict_from", measured)
    for index in range(NUM_SAMPLES):
        made.add_request(Request("a", index, prompt_token_ids=list(range(10, 250))))
    while not peaks:
        made.step()
    assert len(peaks) == NUM_SAMPLES // 2
    assert 0 < max(peaks) <= 2 * row_bytes
