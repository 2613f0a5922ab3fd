"""The benchmark's own honesty: every contender generates the same tokens, all that it claims, from the same prompts."""

import pytest

from dynts_batch.benchmarks.contenders import Workload, make_contender
from dynts_batch.benchmarks.measure import measure
from dynts_batch.errors import ConfigError

TINY = Workload(
    batch_size=3, prompt_tokens=8, max_new_tokens=24, budget=64, window_size=8,
    hidden_size=64, num_layers=2, num_heads=4, num_kv_heads=2, vocab_size=300,
)  # fmt: skip


def test_all_contenders_generate_the_same_tokens_where_nothing_is_evicted() -> None:
    outputs = [
        make_contender(name, TINY)() for name in ("hf-generate", "hf-static", "full", "dynts")
    ]
    assert all(output == outputs[0] for output in outputs[1:])
    assert [len(row) for row in outputs[0]] == [24] * 3


def test_a_contender_can_run_again_and_again() -> None:
    speeds = measure(["full", "window"], TINY, rounds=2)
    assert {name: len(values) for name, values in speeds.items()} == {"full": 2, "window": 2}
    assert all(speed > 0 for values in speeds.values() for speed in values)


def test_an_unknown_contender_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"policy\.name must be one of"):
        make_contender("vllm", TINY)
